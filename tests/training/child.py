"""Train the tiny run where it can be killed: `python child.py '[{"run": FOLDER, "settings": {...}, ...}, ...]'`.

Under `torch.distributed.run` the first session is this process's. Else each is forked, so that torch is imported once,
and the last line printed says how they ended: exit codes, or minus the signal.
"""

import json
import os
import signal
import sys
from pathlib import Path

import lightning_fabric  # noqa: F401 (now, not in each session)
import torch.utils.flop_counter  # noqa: F401 (imports sympy)
from conftest import SETTINGS, digest, make_data, make_model

from utils.core.device import leave_processes
from utils.core.run import Run
from utils.training.config import TrainConfig
from utils.training.fit import fit
from utils.training.objectives import next_token


def session(run, settings, dropout=0.0, number=0, at=None):
    """`fit`, met by signal `number` in the forward pass `at`: [step, micro-batch]."""
    passes = []

    def objective(model, batch, step):
        if model.training:
            passes.append(step)
            if [step, passes.count(step) - 1] == at:
                os.kill(os.getpid(), number)
        return next_token(model, batch, step)

    model, data, config = make_model(dropout=dropout), make_data(Path(run).parent), TrainConfig(**SETTINGS | settings)
    fit(model, objective, data, Run.open(run), config)
    print(f"\nweights {digest(model.state_dict())}")


def forked(arguments):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        session(**arguments)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


if __name__ == "__main__":
    sessions = json.loads(sys.argv[1])
    if "WORLD_SIZE" in os.environ:
        session(**sessions[0])
        leave_processes()
    else:
        print("\n" + json.dumps([forked(arguments) for arguments in sessions]))
