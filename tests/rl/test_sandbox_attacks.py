"""Attacks on the sandbox: none writes or reads a file, sends a packet, outlives its time or sees an expected output.

Every attack returns STOLEN where it gets what it wants. Run as this user, and, where this is root, as nobody as well
(this file is then a program). With the layers off the harmless ones do succeed, so they are real attacks.
"""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from utils.rl import libc
from utils.rl.attacks import ESCAPE
from utils.rl.layers import LAYERS
from utils.rl.sandbox import Job, Sandbox, SandboxConfig

ROOT = Path(__file__).parents[2]
NOBODY = 65534
STOLEN = [[7]]
GRID = [[1, 2], [3, 4]]
TIMEOUT, LATE = 1.0, 0.5
SECRET = "the expected output"
COLAB = ("user", "network", "pid", "ipc", "mount", "landlock")  # what a container often cannot have
MODULES = (*SandboxConfig().modules, "re")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")

# What every attack has at hand: modules of the zygote by way of object's subclasses, C by ctypes, and the bait.
TOOLS = (
    ESCAPE
    + """\
modules = sys.modules
ctypes, time, signal, gc = (modules[name] for name in ("ctypes", "time", "signal", "gc"))
libc = ctypes.CDLL(None, use_errno=True)
sockets = modules["_socket"]
def c(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result
def call(name, *arguments):
    return c(getattr(libc, name)(*arguments))
def system(number, *arguments):
    libc.syscall.restype = ctypes.c_long
    return c(libc.syscall(*map(ctypes.c_long, (number, *arguments))))
folder, secret, tcp, udp, path, victim, trainer = BAIT
"""
)


def attack(body: str) -> str:
    """The lines of solve(grid), with the tools before; STOLEN is returned where they come to their end."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    return f"{TOOLS}def solve(grid):\n{lines}\n    return {STOLEN}\n"


# Without the layers these succeed, and do no harm: name -> lines.
REAL = {
    "read a file": "assert os.read(os.open(secret, os.O_RDONLY), 99)",
    "read a file through io": "assert modules['io'].open(secret).read()",
    "read the password file": "assert os.read(os.open('/etc/passwd', os.O_RDONLY), 99)",
    "list the root directory": "assert os.listdir('/')",
    "look at a file": "os.stat(secret)",
    "write a file": "os.write(os.open(folder + '/written', os.O_CREAT | os.O_WRONLY, 0o666), b'x')",
    "make a directory": "os.mkdir(folder + '/made')",
    "make a symbolic link": "os.symlink('/etc/passwd', folder + '/link')",
    "make a hard link": "os.link(secret, folder + '/hard')",
    "make a pipe in the file system": "os.mkfifo(folder + '/fifo')",
    "go to another directory": "os.chdir('/tmp')",
    "write to memory as a file": "assert os.write(os.memfd_create('x'), b'x')",
    "read its environment": "assert b'RUN_ALL_CANARY' in os.read(os.open('/proc/self/environ', os.O_RDONLY), 1 << 20)",
    "read its own memory map": "assert os.read(os.open('/proc/self/maps', os.O_RDONLY), 99)",
    "see the trainer's process": "os.getsid(trainer)",
    "list the processes": "assert str(trainer) in os.listdir('/proc')",
    "send by TCP": "s = sockets.socket(); s.connect(('127.0.0.1', tcp)); s.send(b'stolen')",
    "send by UDP": "sockets.socket(2, 2).sendto(b'stolen', ('127.0.0.1', udp))",
    "send by a unix socket": "sockets.socket(1, 2).sendto(b'stolen', path)",
    "send to an abstract socket": "sockets.socket(1, 2).sendto(b'stolen', '\\0' + path)",
    "make a pair of sockets": "sockets.socketpair()",
    "listen on a port": "s = sockets.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    "resolve a name": "assert sockets.getaddrinfo(b'localhost', 80)",
    "start a process": "os.waitpid(os.fork() or os._exit(0), 0)",
    "start a process by clone": "call('fork') or os._exit(0)",
    "start a process by vfork": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "start a shell": "assert os.system('true') == 0",
    "start a thread": "modules['_thread'].start_new_thread(int, ()); time.sleep(0.05)",
    "start a daemon": "os.fork() or (os.setsid(), os.fork() or time.sleep(1), os._exit(0))",
    "leave its process group": "os.setpgid(0, 0) if os.getpgid(0) != os.getpid() else os.getsid(os.getppid())",
    "become another program": "os.execv('/bin/true', ['true'])",
    "signal itself": "signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGUSR1)",
    "signal a victim": "os.kill(victim, signal.SIGCONT)",
    "make shared memory": "call('shmctl', call('shmget', 0, 4096, 0o1600), 0, None)",
    "make an event": "call('eventfd', 0, 0)",
    "wait for a file to change": "call('inotify_init')",
    "make a timer": "call('timerfd_create', 1, 0)",
    "make a pipe": "os.pipe()",
    "change its name": "call('prctl', 15, b'kworker', 0, 0, 0)",
    "ask for its limits": "modules['resource'].getrlimit(modules['resource'].RLIMIT_AS)",
    "sleep": "time.sleep(0.01)",
    "set an alarm": "signal.setitimer(signal.ITIMER_REAL, 0.5)",
    "handle a signal": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "block signals": "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))",
    "make memory executable": "system({mmap}, 0, 4096, 7, 0x22, -1, 0)",
    "import by importlib": "modules['importlib._bootstrap'].__import__('os').getcwd()",
    "take back the builtins": "modules['builtins'].open(secret).close()",
    "import through the builtins": "modules['builtins'].__import__('shlex')",
}  # fmt: skip

# These do harm, or can never succeed: name -> (the whole program, kinds of fault it may end in; "" for a plain answer).
ATTACKS = {
    "read the shadow file": (attack("assert os.read(os.open('/etc/shadow', os.O_RDONLY), 99)"), {"forbidden"}),
    "read the trainer's memory": (attack("os.open(f'/proc/{trainer}/mem', os.O_RDONLY)"), {"forbidden"}),
    "read the trainer's environment": (attack("os.open(f'/proc/{trainer}/environ', os.O_RDONLY)"), {"forbidden"}),
    "read physical memory": (attack("os.open('/dev/mem', os.O_RDWR)"), {"forbidden"}),
    "change a file's rights": (attack("os.chmod(secret, 0)"), {"forbidden"}),
    "remove a file": (attack("os.unlink(secret)"), {"forbidden"}),
    "rename a file": (attack("os.rename(secret, folder + '/renamed')"), {"forbidden"}),
    "cut a file short": (attack("os.truncate(secret, 0)"), {"forbidden"}),
    "bomb of forks": (
        attack("while True:\n    try:\n        os.fork()\n    except OSError:\n        pass"),
        {"forbidden"},
    ),
    "bomb of threads": (
        attack("while True:\n    modules['_thread'].start_new_thread(solve, (grid,))"),
        {"forbidden", "runtime"},
    ),
    "kill the trainer": (attack("os.kill(trainer, signal.SIGKILL)"), {"forbidden"}),
    "kill the first process": (attack("os.kill(1, signal.SIGKILL)"), {"forbidden"}),
    "kill everything": (attack("os.kill(-1, signal.SIGKILL)"), {"forbidden"}),
    "kill its group": (attack("os.killpg(0, signal.SIGKILL)"), {"forbidden"}),
    "trace its parent": (attack("call('ptrace', 16, 1, 0, 0)"), {"forbidden"}),
    "read another's memory": (attack("call('process_vm_readv', 1, None, 0, None, 0, 0)"), {"forbidden"}),
    "become root": (attack("os.setuid(0)"), {"forbidden"}),
    "become another user": (attack("os.setresuid(1, 1, 1)"), {"forbidden"}),
    "mount a file system": (attack("call('mount', b'none', b'/', b'tmpfs', 0, None)"), {"forbidden"}),
    "change the root directory": (attack("os.chroot('/')"), {"forbidden"}),
    "make a user namespace": (attack("call('unshare', 0x10000000)"), {"forbidden"}),
    "enter a namespace": (attack("call('setns', 0, 0)"), {"forbidden"}),
    "lift its limits": (
        attack("modules['resource'].setrlimit(modules['resource'].RLIMIT_CPU, (-1, -1))"),
        {"forbidden", "runtime"},
    ),
    "raise its priority": (attack("os.nice(-20)"), {"forbidden"}),
    "take a processor for itself": (
        attack("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"),
        {"forbidden"},
    ),
    "take off the filter": (attack("call('prctl', 22, 0, 0, 0, 0)"), {"forbidden"}),
    "load a program into the kernel": (attack("system({bpf}, 0, 0, 0)"), {"forbidden"}),
    "use io_uring": (attack("system(425, 1, 0)"), {"forbidden"}),
    "use a system call that is none": (attack("system(9999)"), {"forbidden"}),
    "use the other numbers of x86": (attack("system(0x40000000 + 39)"), {"forbidden"}),
    "restart the machine": (attack("call('reboot', 0)"), {"forbidden"}),
    "set the clock": (attack("time.clock_settime(0, 0.0)"), {"forbidden"}),
    "fill memory by a list": ("def solve(grid):\n    while True:\n        grid = grid + grid", {"memory", "timeout"}),
    "fill memory by bits of it": (
        "def solve(grid):\n    while True:\n        grid.append([0] * 99)",
        {"memory", "timeout"},
    ),
    "fill memory at once": ("def solve(grid):\n    return bytearray(1 << 40)", {"memory"}),
    "fill memory by mmap": (
        attack(
            "libc.mmap.restype = ctypes.c_void_p\n"
            "while libc.mmap(None, 1 << 24, 3, 0x22, -1, 0) != 2**64 - 1:\n    pass\n"
            "raise MemoryError"
        ),
        {"memory"},
    ),
    "fill memory by a generator": ("def solve(grid):\n    return list(iter(int, 1))", {"memory", "timeout"}),
    "fill memory by text": ("def solve(grid):\n    return 'x' * 10**12", {"memory"}),
    "fill memory while it is compiled": ("x = [0] * 10**11", {"memory"}),
    "spin": ("def solve(grid):\n    while True:\n        pass", {"timeout"}),
    "spin while it is loaded": ("while True:\n    pass", {"timeout"}),
    "spin and catch everything": (
        "def solve(grid):\n    while True:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass",
        {"timeout"},
    ),
    "spin in C": ("def solve(grid):\n    return sum(range(10**12))", {"timeout"}),
    "spin in a big number": ("def solve(grid):\n    return [[7 ** 7 ** 9 % 10]]", {"timeout", "memory"}),
    "write a big number": ("def solve(grid):\n    return [[len(str(1 << 10**8))]]", {"timeout", "runtime", "memory"}),
    "spin in a regular expression": (
        "import re\ndef solve(grid):\n    return re.match('(a+)+$', 'a' * 40 + 'b')",
        {"timeout"},
    ),
    "spin when it is collected": (
        "class Late:\n    def __del__(self):\n        while True:\n            pass\nlate = Late()\n"
        "def solve(grid):\n    return grid",
        {""},
    ),
    "spin when its answer is looked at": (
        "class Rows(list):\n    def __len__(self):\n        while True:\n            pass\n    __iter__ = __len__\n"
        "def solve(grid):\n    return Rows([[7]])",
        {"bad_output"},
    ),
    "wait for a lock for ever": (
        attack("lock = modules['_thread'].allocate_lock()\nlock.acquire()\nlock.acquire()"),
        {"timeout"},
    ),
    "recurse": ("def solve(grid):\n    return solve(grid)", {"runtime"}),
    "recurse without limit": (
        attack("sys.setrecursionlimit(10**9)\nf = lambda g: [*map(f, [g])]\nf(grid)"),
        {"runtime", "memory", "timeout"},
    ),
    "nest too deeply": ("def solve(grid):\n    return " + "(" * 10000 + ")" * 10000, {"syntax", "memory", "runtime"}),
    "crash": (attack("ctypes.string_at(0)"), {"runtime"}),
    "abort": (attack("os.abort()"), {"runtime", "forbidden"}),
    "exit": (attack("sys.exit(0)"), {"runtime"}),
    "exit at once": (attack("os._exit(0)"), {"forbidden"}),
    "exit with everything patched": (
        attack("os._exit = os.write = lambda *_: None\nmodules['utils.rl.runner'].run = None\nraise SystemExit"),
        {"runtime", "forbidden"},
    ),
    "raise what cannot be shown": (
        "class Odd(BaseException):\n    def __str__(self):\n        raise Odd\n    __repr__ = __str__\n"
        "def solve(grid):\n    raise Odd",
        {"runtime"},
    ),
    "raise with a long message": ("def solve(grid):\n    raise ValueError('x' * 10**7)", {"runtime"}),
    "a name that raises": (
        "class Meta(type):\n    @property\n    def __name__(cls):\n        raise KeyError\n"
        "class Odd(metaclass=Meta):\n    pass\ndef solve(grid):\n    return Odd()",
        {"runtime", "bad_output"},
    ),
    "return a huge grid": ("def solve(grid):\n    return [[7] * 1000] * 1000", {"bad_output"}),
    "return itself in itself": ("def solve(grid):\n    grid[0] = grid\n    return grid", {"bad_output"}),
    "return truths": ("def solve(grid):\n    return [[True]]", {"bad_output"}),
    "return fractions": ("def solve(grid):\n    return [[7.0]]", {"bad_output"}),
    "return negatives": ("def solve(grid):\n    return [[-3]]", {"bad_output"}),
    "return ragged rows": ("def solve(grid):\n    return [[7], [7, 7]]", {"bad_output"}),
    "return numbers of its own": (
        "class Seven(int):\n    pass\ndef solve(grid):\n    return [[Seven(7)]]",
        {"bad_output"},
    ),
    "return what equals everything": (
        "class Any:\n    def __eq__(self, other):\n        return True\n    def __index__(self):\n        return 7\n"
        "    __int__ = __index__\ndef solve(grid):\n    return [[Any()]]",
        {"bad_output"},
    ),
    "return what unpickles into a shell": (
        attack(
            "class Shell:\n    def __reduce__(self):\n"
            "        return os.system, ('touch ' + folder + '/shell',)\nreturn Shell()"
        ),
        {"bad_output"},
    ),
    "write nonsense as its result": (attack("os.write(0, b'\\xff' * 100)"), {"bad_output"}),
    "write more than its result": (attack("while True:\n    os.write(0, bytes(1 << 16))"), {"bad_output"}),
    "write a second result": (attack("os.write(0, bytes((1, 1, 1, 3)) * 9)\nreturn [[3]]"), {"bad_output"}),
    "write a result outside the bounds": (attack("os.write(0, bytes((1, 1, 1, 200)))\nos._exit(0)"), {"bad_output"}),
    "write half a result": (attack("os.write(0, bytes((1, 30, 30)))\nos._exit(0)"), {"forbidden"}),
    "write to every descriptor": (
        attack(
            "for handle in range(1, 999):\n    try:\n        os.write(handle, b'x' * 99)\n        return [[7]]\n"
            "    except OSError:\n        pass\nreturn [[0]]"
        ),
        {""},
    ),
    "read from every descriptor": (
        attack(
            "for handle in range(0, 999):\n    try:\n        os.read(handle, 99)\n        return [[7]]\n"
            "    except OSError:\n        pass\nreturn [[0]]"
        ),
        {""},
    ),
    "close its result pipe": (attack("os.close(0)"), {"forbidden"}),
    "close every descriptor": (attack("os.closerange(0, 999)"), {"forbidden"}),
    "copy its result pipe": (attack("os.dup2(0, 1)"), {"forbidden"}),
    "find the expected output in memory": (
        attack(
            "wanted = bytes(range(9, -1, -1)) * 3\n"
            "gc.unfreeze()\n"
            "for one in gc.get_objects():\n"
            "    if isinstance(one, dict) and any(name in one for name in ('output', 'expected', 'outputs')):\n"
            "        return [[7]]\n"
            "    if type(one) in (list, tuple) and any(type(part) is bytes and part == wanted for part in one):\n"
            "        return [[7]]\n"
            "return [[0]]"
        ),
        {""},
    ),
    "find the expected output in frames": (
        attack(
            "frame = sys._getframe()\n"
            "while frame:\n"
            "    for name, value in frame.f_locals.items():\n"
            "        if name in ('expected', 'output', 'pairs', 'task', 'jobs') or 'numpy' in type(value).__module__:\n"
            "            return [[7]]\n"
            "    frame = frame.f_back\n"
            "return [[0]]"
        ),
        {""},
    ),
    "find the trainer's modules": (
        attack("return [[7]] if {'numpy', 'torch', 'pydantic', 'utils.rl.sandbox'} & set(modules) else [[0]]"), {""}
    ),
    "find another program's answers": (
        attack(
            "gc.unfreeze()\n"
            "for one in gc.get_objects():\n"
            "    if type(one).__name__ == 'Process' and type(one).__module__ == 'utils.rl.zygote' and one.raw:\n"
            "        return [[7]]\n"
            "return [[0]]"
        ),
        {""},
    ),
    "import, politely": ("import os\nimport subprocess", {"forbidden"}),
    "import a part": ("from collections import abc\nimport importlib.util", {"forbidden"}),
    "import from nearby": ("from . import zygote", {"forbidden"}),
    "import by a name of its own": (
        "class Name(str):\n    def partition(self, _):\n        return ('math',)\ndef solve(grid):\n"
        "    __builtins__['__import__'](Name('os'))",
        {"forbidden", "runtime"},
    ),
}  # fmt: skip


def numbers(program: str) -> str:
    """With the system calls' numbers of this machine."""
    ours = {"x86_64": {"mmap": 9, "bpf": 321}, "aarch64": {"mmap": 222, "bpf": 280}}[os.uname().machine]
    for name, number in ours.items():
        program = program.replace("{" + name + "}", str(number))
    return program


class Bait:
    """What the attacks go for; `taken` tells what of it they got."""

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o777)
        self.secret = self.folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o666)
        self.path = str(self.folder / "socket")
        self.tcp = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.datagrams = []
        for kind, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, self.path),
            (socket.AF_UNIX, "\0" + self.path),
        ):
            self.datagrams.append(self.stack.enter_context(socket.socket(kind, socket.SOCK_DGRAM)))
            self.datagrams[-1].bind(address)
        os.chmod(self.path, 0o777)
        self.victim = subprocess.Popen(["sleep", "1000"])
        self.before = self.files()
        self.expected = [bytes(range(9, -1, -1)) * 3]  # in the trainer's memory, and there alone
        return self

    def __exit__(self, *_):
        self.victim.kill()
        self.victim.wait()
        self.stack.close()

    def files(self):
        found = {
            "secret": (self.secret.read_text(), stat.S_IMODE(self.secret.stat().st_mode))
            if self.secret.exists()
            else None
        }
        return {**found, **{path.name: 0 for path in self.folder.iterdir() if path != self.secret}}

    def line(self):
        place = (str(self.folder), str(self.secret), self.tcp.getsockname()[1], self.datagrams[0].getsockname()[1])
        return f"BAIT = {(*place, self.path, self.victim.pid, os.getpid())!r}\n"

    def taken(self):
        found = []
        if self.files() != self.before:
            found.append(f"files: {sorted(self.files())}")
        for one in (self.tcp, *self.datagrams):
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                found.append(f"a packet: {(one.accept if one is self.tcp else lambda: one.recv(99))()!r}")  # noqa: B023
        if self.victim.poll() is not None:
            found.append("the victim")
        return found


def battery(disabled: tuple = ()) -> dict:
    """Every attack at once in one sandbox; {"outcomes": {name: [kind, message, seconds, outputs]}, ...}."""
    config = SandboxConfig(timeout=TIMEOUT, slots=4, modules=MODULES, disabled=disabled)
    others = set(parents())  # another test's sandbox may be open
    with Bait() as bait, Sandbox(config, workers=2) as sandbox:
        programs = {name: attack(body) for name, body in REAL.items()} | {
            name: program for name, (program, _) in ATTACKS.items()
        }
        jobs = [Job(bait.line() + numbers(program), (GRID,)) for program in programs.values()]
        honest = Job("def solve(grid):\n    return grid[::-1]", (GRID,))
        outcomes = sandbox.run([job for each in jobs for job in (each, honest)])
        mixed = [outcome.error is None and outcome.outputs[0].tolist() == GRID[::-1] for outcome in outcomes[1::2]]
        found = {
            name: [
                outcome.error.kind if outcome.error else "",
                outcome.error.message if outcome.error else "",
                outcome.seconds,
                [None if output is None else output.tolist() for output in outcome.outputs],
            ]
            for name, outcome in zip(programs, outcomes[::2])
        }
        tree = {pid for worker in sandbox._workers for pid in (worker.pid, *below(worker.pid))}
        alive = survivors(tree | others)
        taken, levels, restarts = bait.taken(), sandbox.levels, sandbox.restarts
    return {
        "outcomes": found, "honest": sum(mixed), "jobs": len(jobs), "taken": taken, "levels": levels, "alive": alive,
        "after": survivors(others), "restarts": restarts, "user": os.getuid(), "tree": len(tree),
    }  # fmt: skip


def parents() -> dict[int, int]:
    """Of every process that can be seen, the one that started it."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def below(pid: int) -> set[int]:
    tree = parents()
    found, left = set(), {pid}
    while left:
        left = {child for child, parent in tree.items() if parent in left}
        found |= left
    return found


def survivors(known: set[int]) -> list[int]:
    """Processes of this one's or of nobody's, that are a zygote's or come from one, and are not among `known`."""
    end = time.monotonic() + 5
    while True:
        tree, found = parents(), []
        for pid in set(tree) - known:
            with contextlib.suppress(OSError):
                ours = pid in below(os.getpid()) or tree[pid] == 1
                if ours and b"utils.rl.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def as_nobody() -> dict:
    """The battery by a process that gave up root for good, with the interpreter put where nobody can reach it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_sandbox_attacks as own; own.unprivileged()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", code, str(Path(__file__).parent), place]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode == 77:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def unprivileged() -> None:
    """Show the interpreter to everybody in mounts of this process's own, become nobody, and print the battery."""
    python = Path(os.path.realpath(sys.executable))
    closed = next((path for path in reversed(python.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if closed is not None:
        try:
            libc.call("unshare", libc.NEW_MOUNT)
        except OSError as error:
            print(f"nobody cannot reach {python}, and it cannot be put elsewhere: {error}", file=sys.stderr)
            sys.exit(77)
        libc.call("mount", None, b"/", None, libc.RECURSIVE | libc.PRIVATE, None)
        home, place = python.parents[1], sys.argv[2]
        libc.call("mount", os.fsencode(home), os.fsencode(place), None, 0x1000, None)  # MS_BIND
        libc.call("mount", b"none", os.fsencode(closed), b"tmpfs", 0, b"mode=755")
        home.mkdir(parents=True)
        libc.call("mount", os.fsencode(place), os.fsencode(home), None, 0x1000, None)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    print(json.dumps(battery()))


@pytest.fixture(scope="module", params=["this user", "nobody", "as in Colab"])
def result(request):
    if request.param != "nobody":
        return battery(COLAB if request.param == "as in Colab" else ())
    if os.geteuid() != 0:
        pytest.skip("this user is not root, and so the first battery was the unprivileged one")
    return as_nobody()


def test_there_are_at_least_forty_attacks():
    assert len({**REAL, **ATTACKS}) == len(REAL) + len(ATTACKS) > 40


@pytest.mark.parametrize("name", [*REAL, *ATTACKS])
def test_an_attack_gets_nothing_and_ends_in_time(result, name):
    kind, message, seconds, outputs = result["outcomes"][name]
    assert STOLEN not in outputs, message
    assert seconds <= TIMEOUT + LATE
    assert kind in (ATTACKS[name][1] if name in ATTACKS else {"forbidden", "runtime"}), f"{kind}: {message}"


def test_no_file_changes_no_packet_comes_and_no_process_is_left(result):
    assert result["taken"] == []
    assert result["alive"] == []
    assert result["after"] == []


def test_honest_programs_between_the_attacks_are_answered_and_no_worker_is_lost(result):
    assert result["honest"] == result["jobs"]
    assert result["restarts"] == 0


def test_the_floor_holds_for_this_user(result):
    levels = result["levels"]
    assert {levels[name] for name in ("process", "rlimits", "seccomp", "kill")} == {"ACTIVE"}
    assert levels["uid"] == ("ACTIVE" if result["user"] == 0 else "NOT NEEDED")


def test_without_the_layers_the_attacks_are_real():
    """Most of them: some need what this machine may not have."""
    off = tuple(name for name in LAYERS if name not in ("process", "kill"))
    with Bait() as bait, Sandbox(SandboxConfig(timeout=20, disabled=off, allow_unsafe=True), workers=1) as sandbox:
        outcomes = sandbox.run([Job(bait.line() + numbers(attack(body)), (GRID,)) for body in REAL.values()])
        taken = bait.taken()
    worked = {
        name for name, outcome in zip(REAL, outcomes) if outcome.error is None and outcome.outputs[0].tolist() == STOLEN
    }
    failed = {name: str(outcome.error) for name, outcome in zip(REAL, outcomes) if name not in worked}
    assert len(worked) >= 0.9 * len(REAL), failed
    assert any("written" in found for found in taken), taken
    assert sum("packet" in found for found in taken) == 4
