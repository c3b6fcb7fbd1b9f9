"""A few attacks on the sandbox, and what came of each: for a person to see. tests/rl/test_sandbox_attacks.py has more.

Every one first leaves Python's own restrictions, as any program can: what stops it after that is the system.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.rl.sandbox import Job, Sandbox

if TYPE_CHECKING:
    import pandas

ESCAPE = """\
for kind in ().__class__.__base__.__subclasses__():
    if kind.__name__ == "_wrap_close":
        os = kind.__init__.__globals__["sys"].modules["os"]
sys = os.sys
"""
"""From an empty tuple to the module os."""


def _solve(body: str, before: str = ESCAPE) -> str:
    return f"{before}def solve(grid):\n    {body}"


DONE = "\n    return grid"  # an answer, which only an attack that got away with it comes to
LOOP = "while True:\n        "
OUTPUTS = "[one['output'] for one in sys.modules['gc'].get_objects() if type(one) is dict and 'output' in one]"
ATTACKS: dict[str, tuple[str, str]] = {
    "read the password file": ("import os, politely", _solve(f"os.open('/etc/passwd', 0){DONE}", "import os\n")),
    "read it without import": ("os, through object's subclasses", _solve(f"os.open('/etc/passwd', 0){DONE}")),
    "run a shell": ("os.system", _solve(f"assert os.system('true') == 0, 'no shell came'{DONE}")),
    "multiply": ("fork, forever", _solve(LOOP + "os.fork()")),
    "send a message out": ("a socket", _solve(f"sys.modules['_socket'].socket(){DONE}")),
    "kill its parent": ("SIGKILL to process 1", _solve(f"os.kill(1, 9){DONE}")),
    "read secrets": ("os.environ", _solve(f"assert os.environ, 'nothing is there'{DONE}")),
    "find the expected output": ("every object in memory", _solve(f"assert {OUTPUTS}, 'none is there'{DONE}")),
    "take all memory": ("a list that doubles", _solve(LOOP + "grid = grid + grid", "")),
    "never end": ("an empty loop", _solve(LOOP + "pass", "")),
    "return an impostor": ("a list of a class of its own", _solve("return Rows(grid)", "class Rows(list): pass\n")),
}
"""What each wants: how it tries, and the program."""


def demonstrate(sandbox: Sandbox) -> pandas.DataFrame:
    """Each attack, what it tries, whether it got away with it, and what came of it: the kind of fault, and in words."""
    import pandas

    outcomes = sandbox.run([Job(program, ([[1, 2], [3, 4]],)) for _, program in ATTACKS.values()])
    rows = [
        {
            "attack": name,
            "tries": tries,
            "got away with it": "no" if outcome.error else "yes",
            "came of it": outcome.error.kind if outcome.error else "an answer",
            "line": str(outcome.error.line or "") if outcome.error else "",
            "message": outcome.error.message if outcome.error else f"{outcome.outputs[0].tolist()}",
        }
        for (name, (tries, _)), outcome in zip(ATTACKS.items(), outcomes)
    ]
    return pandas.DataFrame(rows)
