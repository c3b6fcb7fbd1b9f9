"""Play the game of test_loop.py where it can be killed: `python ppo_child.py '[{"run": FOLDER, ...}, ...]'`.

Each session is forked, so that torch is imported once, and the last line printed says how they ended: exit codes, or
minus the signal. Under `torch.distributed.run` the sessions are each process's, one after the other, and a lesson
follows whose outcome is written to the folder that is given.
"""

import json
import os
import signal
import sys

import lightning_fabric  # noqa: F401 (now, not in each session)
import torch
from test_loop import SETTINGS, counted, digest, make_game, make_policy, meet_reading, share_of_a_lesson

from utils.core.device import leave_processes
from utils.core.run import Run, RunError
from utils.rl.config import PPOConfig
from utils.rl.loop import train_ppo
from utils.rl.reference import reference_of
from utils.rl.sandbox import Sandbox, SandboxConfig


def session(run, settings, value="head", number=0, at=None):
    """`train_ppo`, met by signal `number` at a forward pass or at the reading of a program: {kind: how many before}."""
    policy, config = make_policy(value=value), PPOConfig(**SETTINGS | settings)
    with Sandbox(SandboxConfig(timeout=10), workers=1) as sandbox:
        game = make_game(sandbox)
        for kind, place in (at or {}).items():
            if kind == "forward":
                policy.register_forward_pre_hook(counted(lambda: os.kill(os.getpid(), number), place))
            else:
                game = meet_reading(game, lambda: os.kill(os.getpid(), number), place)
        result = train_ppo(policy, reference_of(policy), game, Run.open(run), config)
    return f"weights {digest(policy.state_dict())} of update {result.progress.update}"


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


def several(sessions, folder):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    signal.signal(signal.SIGTERM, lambda *_: None)  # delivered when the update is saved
    for number, arguments in enumerate(sessions):
        if arguments.pop("rank", rank) != rank:
            arguments["at"] = None
        try:
            said = session(**arguments)
        except RunError as error:
            said = f"refused: {error}"
        print(f"\nprocess {rank} session {number} {said}", flush=True)
    torch.save(share_of_a_lesson(rank, world), f"{folder}/lesson{rank}.pt")
    leave_processes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        several(json.loads(sys.argv[1]), sys.argv[2])
    else:
        print("\n" + json.dumps([forked(arguments) for arguments in json.loads(sys.argv[1])]))
