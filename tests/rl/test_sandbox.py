"""The sandbox: what comes back, which fault is which, that nothing is lost, and that nothing runs below the floor."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from utils.arc.grids import GridError
from utils.rl import sandbox as module
from utils.rl import worker
from utils.rl.attacks import ATTACKS, demonstrate
from utils.rl.layers import FLOOR, LAYERS
from utils.rl.sandbox import Job, Layer, Sandbox, SandboxConfig, SandboxError, probe

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the sandbox needs fork")

GRID = [[1, 2, 0], [3, 4, 0]]
SAME = "def solve(grid):\n    return grid"
HANG = "def solve(grid):\n    while True:\n        pass"


@pytest.fixture(scope="module")
def sandbox():
    """Ten seconds for each program: a busy machine is no fault."""
    with Sandbox(SandboxConfig(timeout=10), workers=2) as opened:
        yield opened


def one(sandbox, program, *inputs):
    (outcome,) = sandbox.run([Job(program, inputs or (GRID,))])
    return outcome


def test_outputs_are_what_the_program_returns_on_each_input_in_order(sandbox):
    """Against the same function called here, on lists and on arrays."""
    program = "def solve(grid):\n    return [[9 - cell for cell in row[::-1]] for row in grid]"
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, 10, rng.integers(1, 31, 2), dtype=np.uint8) for _ in range(20)]
    jobs = [Job(program, tuple(grids[:at])) for at in range(20)] + [
        Job(program, tuple(grid.tolist() for grid in grids))
    ]
    for job, outcome in zip(jobs, sandbox.run(jobs)):
        assert outcome.error is None
        assert outcome.faults == (None,) * len(job.inputs)
        assert len(outcome.outputs) == len(job.inputs)
        for grid, output in zip(job.inputs, outcome.outputs):
            assert output.dtype == np.uint8
            assert output.tolist() == (9 - np.asarray(grid)[:, ::-1]).tolist()


def test_an_input_that_the_program_changes_is_its_own_copy(sandbox):
    grid = [[1, 2], [3, 4]]
    program = "seen = []\ndef solve(grid):\n    grid[0][0] = 9\n    seen.append(grid)\n    return grid"
    outcome = one(sandbox, program, grid, grid)
    assert [output.tolist() for output in outcome.outputs] == [[[9, 2], [3, 4]]] * 2
    assert grid == [[1, 2], [3, 4]]


def test_programs_have_the_primitives_and_the_listed_modules(sandbox):
    from utils.arc.dsl import PRIMITIVES

    name = next(iter(PRIMITIVES))
    program = (
        "import math, itertools, collections.abc\nfrom collections import Counter, defaultdict\nimport copy as c\n"
    )
    outcome = one(sandbox, f"{program}def solve(grid):\n    assert callable({name})\n    return [[math.gcd(6, 4)]]")
    assert outcome.error is None
    assert outcome.outputs[0].tolist() == [[2]]


@pytest.mark.parametrize(
    ("program", "kind", "line", "message"),
    [
        ("def solve(grid)\n    return grid", "syntax", 1, "expected ':'"),
        ("x = 1\n  y = 2", "syntax", 2, "unexpected indent"),
        ("a\0b", "syntax", None, "null byte"),
        ("x = '\ud800'", "syntax", None, "surrogates"),
        ("", "runtime", None, "no function solve"),
        ("solve = 3", "runtime", None, "no function solve"),
        ("\n\n1 / 0", "runtime", 3, "ZeroDivisionError"),
        ("def solve(grid):\n    return part(grid)\ndef part(grid):\n    return grid[9]", "runtime", 4, "IndexError"),
        ("def solve():\n    return 1", "runtime", None, "TypeError"),
        ("def solve(grid):\n    return solve(grid)", "runtime", 2, "RecursionError"),
        ("def solve(grid):\n    return [grid] * 10**10", "memory", 2, "MemoryError"),
        ("import os", "forbidden", 1, "import os"),
        ("from os import path", "forbidden", 1, "import os"),
        ("import math\nimport numpy", "forbidden", 2, "may import math"),
        ("def solve(grid):\n    return open('x')", "forbidden", 2, "open()"),
        ("def solve(grid):\n    return eval('grid')", "forbidden", 2, "eval()"),
        ("def solve(grid):\n    exit()", "forbidden", 2, "exit()"),
        ("def solve(grid):\n    raise SystemExit", "runtime", 2, "SystemExit"),
        ("def solve(grid):\n    return None", "bad_output", None, "a NoneType; expected a grid"),
        ("def solve(grid):\n    return []", "bad_output", None, "0 rows"),
        ("def solve(grid):\n    return [[]]", "bad_output", None, "0 cells"),
        ("def solve(grid):\n    return [[1, 2], [3]]", "bad_output", None, "row 1 has 1 cells and row 0 has 2"),
        ("def solve(grid):\n    return [[True]]", "bad_output", None, "row 0 holds a bool"),
        ("def solve(grid):\n    return [[1.0]]", "bad_output", None, "row 0 holds a float"),
        ("def solve(grid):\n    return [[10]]", "bad_output", None, "outside 0 to 9"),
        ("def solve(grid):\n    return [[-1]]", "bad_output", None, "outside 0 to 9"),
        ("def solve(grid):\n    return [[1] * 31]", "bad_output", None, "31 cells"),
        ("def solve(grid):\n    return [[1]] * 31", "bad_output", None, "31 rows"),
        ("def solve(grid):\n    return ['12']", "bad_output", None, "row 0 is a str"),
    ],
)  # fmt: skip
def test_faults_have_a_kind_a_line_and_a_reason(sandbox, program, kind, line, message):
    outcome = one(sandbox, program)
    assert (outcome.error.kind, outcome.error.line) == (kind, line)
    assert message in outcome.error.message
    assert outcome.outputs == (None,)
    assert outcome.faults == (outcome.error,)


def test_an_input_that_fails_leaves_the_others_as_they_are(sandbox):
    program = "def solve(grid):\n    if grid[0][0] == 2:\n        raise ValueError('two')\n    return grid"
    outcome = one(sandbox, program, [[1]], [[2]], [[3]])
    assert [None if output is None else output.tolist() for output in outcome.outputs] == [[[1]], None, [[3]]]
    assert outcome.faults[::2] == (None, None)
    assert str(outcome.error) == "runtime, line 3: ValueError: two" == str(outcome.faults[1])


def test_tuples_of_rows_are_grids_too(sandbox):
    outcome = one(sandbox, "def solve(grid):\n    return tuple(zip(*grid))")
    assert outcome.outputs[0].tolist() == [list(column) for column in zip(*GRID)]


def test_answers_before_a_program_hangs_are_kept():
    with Sandbox(SandboxConfig(timeout=1), workers=1) as sandbox:
        outcome = one(
            sandbox, "def solve(grid):\n    while grid[0][0] == 2:\n        pass\n    return grid", [[1]], [[2]], [[3]]
        )
    assert outcome.outputs[0].tolist() == [[1]]
    assert [fault and fault.kind for fault in outcome.faults] == [None, "timeout", "timeout"]


def test_with_a_process_for_each_input_nothing_is_carried_over_and_each_has_its_time():
    loop = "    while grid == [[2]]:\n        pass\n"
    program = f"seen = []\ndef solve(grid):\n    seen.append(1)\n{loop}    return [[len(seen)]]"
    for one_process, expected in ((True, [[[1]], [[2]], [[3]]]), (False, [[[1]], [[1]], [[1]]])):
        with Sandbox(SandboxConfig(one_process=one_process, timeout=5), workers=1) as sandbox:
            outcome = one(sandbox, program, [[1]], [[1]], [[1]])
            assert [output.tolist() for output in outcome.outputs] == expected
            assert one(sandbox, "x", [[1]], [[2]]).error.message.startswith("NameError")
    with Sandbox(SandboxConfig(one_process=False), workers=1) as sandbox:
        outcome = one(sandbox, program, [[1]], [[2]], [[3]])
    assert [fault and fault.kind for fault in outcome.faults] == [None, "timeout", None]


def test_a_program_gives_the_same_answer_in_every_worker_and_every_sandbox():
    """Sets of text are in an order that Python draws anew for each interpreter, unless it is told not to."""
    program = "def solve(grid):\n    return [[int(name) for name in set('0123456789')]]"
    answers = set()
    for _ in range(2):
        with Sandbox(SandboxConfig(timeout=10), workers=2) as sandbox:
            answers |= {outcome.outputs[0].tobytes() for outcome in sandbox.run([Job(program, (GRID,))] * 8)}
    assert len(answers) == 1


def test_an_input_that_is_no_grid_is_refused_before_anything_runs(sandbox):
    with pytest.raises(GridError, match="expected 0 to 9"):
        one(sandbox, SAME, [[11]])
    assert one(sandbox, SAME).error is None


def test_no_jobs_and_no_inputs_give_no_outputs(sandbox):
    assert sandbox.run([]) == []
    (outcome,) = sandbox.run([Job(SAME, ())])
    assert (outcome.outputs, outcome.faults, outcome.error) == ((), (), None)
    assert sandbox.run([Job("def", ())])[0].error.kind == "syntax"


def test_of_a_thousand_programs_a_tenth_hang_and_all_come_back_each_with_its_own_end():
    """How long that takes is benchmarks/sandbox.py's to say: about 100 s / 16 slots."""
    hung = set(np.random.default_rng(0).permutation(1000)[:100].tolist())
    programs = [
        HANG if at in hung else f"def solve(grid):\n    return [[{at % 10}, {at // 10 % 10}]]" for at in range(1000)
    ]
    with Sandbox(SandboxConfig(timeout=1, slots=8), workers=2) as sandbox:
        outcomes = sandbox.run([Job(program, (GRID,)) for program in programs])
        assert sandbox.restarts == 0
    assert [outcome.error.kind if outcome.error else "" for outcome in outcomes] == [
        "timeout" if at in hung else "" for at in range(1000)
    ]
    told = [None if at in hung else [[at % 10, at // 10 % 10]] for at in range(1000)]
    assert [None if one.outputs[0] is None else one.outputs[0].tolist() for one in outcomes] == told


def descendants(pid):
    """The numbers of all processes that come from `pid`."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(rest[1]), []).append(number)
    found, left = set(), [pid]
    while left:
        below = children.get(left.pop(), [])
        found.update(below)
        left += below
    return found


def zygotes(sandbox):
    """Of each worker, the process that forks: the one within the pid namespace, where there is one."""
    return [max({worker.pid, *descendants(worker.pid)}) for worker in sandbox._workers]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_a_worker_that_is_killed_is_started_again_and_no_program_is_lost(caplog):
    """Killed while it has a slow program in each slot; the programs are run again."""
    slow = "def solve(grid):\n    for _ in range(3 * 10**6):\n        pass\n    return grid"
    with Sandbox(SandboxConfig(timeout=60, slots=2), workers=2) as sandbox:
        victim = zygotes(sandbox)[0]
        timer = threading.Timer(0.1, os.kill, (victim, signal.SIGKILL))
        timer.start()
        outcomes = sandbox.run([Job(slow, (GRID,))] * 30)
        timer.join()
        assert [outcome.error for outcome in outcomes] == [None] * 30
        assert sandbox.restarts == 1
        assert "A sandbox worker ended" in caplog.text
        assert set(sandbox.levels.values()) <= {"ACTIVE", "MISSING", "NOT NEEDED"}


def test_a_program_whose_worker_ends_again_and_again_is_reported(monkeypatch):
    """A worker that ends with every job, in place of one that a program can kill."""
    with Sandbox(SandboxConfig(timeout=10), workers=1) as sandbox:
        monkeypatch.setattr(
            module.Worker, "write", lambda self: self.kill() or (_ for _ in ()).throw(module.WorkerError("x"))
        )
        outcomes = sandbox.run([Job(SAME, (GRID, GRID))] * 3)
        monkeypatch.undo()
        assert [outcome.error.message for outcome in outcomes] == [
            "the worker ended 2 times with this program under way"
        ] * 3
        assert outcomes[0].outputs == (None, None)
        assert one(sandbox, SAME).error is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_an_interrupted_batch_leaves_nothing_behind(monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = descendants(os.getpid())
    with Sandbox(SandboxConfig(timeout=60), workers=2) as sandbox:
        old = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                sandbox.run([Job(HANG, (GRID,))] * 4)
        finally:
            signal.signal(signal.SIGALRM, old)
        assert gone(lambda: descendants(os.getpid()) - before)
        assert one(sandbox, SAME).error is None
    assert gone(lambda: descendants(os.getpid()) - before)


def gone(left, seconds=10.0):
    """Whether nothing is left soon; the system takes its time to end a process."""
    end = time.monotonic() + seconds
    while left() and time.monotonic() < end:
        time.sleep(0.02)
    return not left()


def test_the_names_of_the_layers_are_one_list():
    assert get_args(Layer) == tuple(LAYERS)
    assert set(FLOOR) <= set(LAYERS)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "process"])
def test_a_layer_that_is_left_off_is_reported_missing_and_refused_on_the_floor(layer):
    config = SandboxConfig(disabled=(layer,), timeout=10)
    with Sandbox(config.replace(allow_unsafe=True), workers=1) as sandbox:
        assert one(sandbox, SAME).error is None
        report = sandbox.report
    assert report.facts["switched off"] == layer
    if layer == "uid" and os.geteuid() != 0:
        assert report[layer].status == "skip"
        return
    assert sandbox_levels(report)[layer] == "MISSING"
    assert "switched off" in report[layer].summary
    assert report[layer].status == ("fail" if layer in FLOOR else "warn")
    if layer in FLOOR:
        assert not report.sound
        assert report.facts["programs"] == "run all the same (allow_unsafe)"
        with pytest.raises(SandboxError, match=f"lacks: {layer} .*allow_unsafe"):
            Sandbox(config, workers=1).open()
    else:
        with Sandbox(config, workers=1) as sandbox:
            assert one(sandbox, SAME).error is None


def sandbox_levels(report):
    return {check.name: check.summary.partition(":")[0] for check in report.checks}


def test_a_system_without_linuxs_layers_is_refused_and_runs_where_that_is_accepted(monkeypatch):
    """macOS, as far as this machine can be one: a zygote that takes itself for it, with fork and limits."""
    monkeypatch.setattr(worker, "START", "import sys; sys.platform = 'darwin'; " + worker.START.partition("; ")[2])
    with pytest.raises(SandboxError, match=r"lacks: .*seccomp \(.*only Linux has it.*allow_unsafe"):
        Sandbox(SandboxConfig(), workers=1).open()
    with Sandbox(SandboxConfig(allow_unsafe=True, timeout=10), workers=1) as sandbox:
        assert one(sandbox, SAME).error is None
        assert one(sandbox, "def solve(grid):\n    return [grid] * 10**10").error.kind == "memory"
        missing = {name for name, level in sandbox.levels.items() if level == "MISSING"}
    assert missing >= {"seccomp", "landlock", "user", "network", "pid", "ipc", "mount"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_nothing_outlives_a_trainer_that_is_killed():
    """With programs under way that never end, and no limit of time for them that would come first."""
    code = (
        "from utils.rl.sandbox import *; s = Sandbox(SandboxConfig(timeout=600)).open();"
        f"print([w.pid for w in s._workers], flush=True); s.run([Job({HANG!r}, ([[1]],))] * 8)"
    )
    root = Path(__file__).parents[2]
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root, text=True)
    with trainer:
        workers = json.loads(trainer.stdout.readline())
        assert gone(lambda: len(descendants(trainer.pid)) < len(workers) + 8)  # the programs are running
        processes = descendants(trainer.pid)
        assert processes > set(workers)
        trainer.kill()
    assert gone(lambda: {pid for pid in processes if alive(pid)})


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("allow_unsafe", [False, True])
def test_without_a_process_of_its_own_no_program_runs_whatever_is_allowed(allow_unsafe):
    config = SandboxConfig(disabled=("process",), allow_unsafe=allow_unsafe)
    report = probe(config)
    assert set(sandbox_levels(report).values()) == {"MISSING"}
    assert report.facts["programs"] == "refused"
    with pytest.raises(SandboxError, match="never runs inside the trainer"):
        Sandbox(config).run([Job(SAME, (GRID,))])


def test_a_system_without_fork_is_told_where_to_go(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(SandboxError, match="no fork.*WSL 2"):
        Sandbox(SandboxConfig(allow_unsafe=True)).open()
    assert not probe().sound


def test_the_report_is_saved_with_every_layer_and_shown(sandbox, tmp_path):
    report = sandbox.report
    assert [check.name for check in report.checks] == list(LAYERS)
    _, data = report.save(tmp_path, "sandbox")
    saved = {check["name"]: check["summary"] for check in json.loads(data.read_text())["checks"]}
    assert {name: said.partition(":")[0] for name, said in saved.items()} == sandbox.levels
    assert "ACTIVE" in report._repr_html_()
    assert all(sandbox.levels[name] == "ACTIVE" for name in FLOOR)


def test_the_probe_spends_the_processor_time_and_the_sandbox_says_that_it_did_not(sandbox):
    assert "processor time spent" in probe()["rlimits"].summary
    assert "read back" in sandbox.report["rlimits"].summary


def test_the_attacks_that_are_shown_come_to_nothing():
    with Sandbox(workers=1) as sandbox:
        table = demonstrate(sandbox)
    assert list(table["attack"]) == list(ATTACKS)
    assert set(table["got away with it"]) == {"no"}
    assert set(table["came of it"]) <= {"forbidden", "memory", "timeout", "bad_output", "runtime"}


@pytest.mark.parametrize("name", ["read the password file", "read secrets", "find the expected output"])
def test_an_attack_that_gets_away_with_it_comes_to_an_answer(name, monkeypatch):
    """Here, without walls: what each looks for is there, and its program gives its grid back."""
    monkeypatch.setenv("A_SECRET", "x")
    names, hidden = {}, {"output": [[1]]}
    exec(ATTACKS[name][1], names)
    assert names["solve"]([[1, 2]]) == [[1, 2]]
    assert hidden["output"]


@pytest.mark.parametrize(("modules", "primitives"), [(("os_that_is_not_there",), ""), ((), "utils.arc.not_there")])
def test_a_zygote_that_cannot_start_says_why(modules, primitives):
    with pytest.raises(SandboxError, match="did not start.*No module named"):
        Sandbox(SandboxConfig(modules=modules, primitives=primitives), workers=1).open()
