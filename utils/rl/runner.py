"""A program, inside the process made for it: loaded, called on each input, and its answers or faults written down.

Everything here shares its process with hostile code and is believed by nobody; the walls are `rl.layers`. Standard
library only.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable

from utils.rl import wire

NAME = "<program>"
FORBIDDEN = (
    "open", "exec", "eval", "compile", "input", "breakpoint", "help", "exit", "quit", "globals", "locals", "vars",
)  # fmt: skip
RESERVE = 1 << 12  # bytes let go of when memory has run out, so that the fault can be written
NO_MEMORY = wire.pack_fault("memory", None, "MemoryError")


class Forbidden(Exception):
    """What a program may not ask for."""


def run(body: bytes, names: dict[str, object], write: Callable[[bytes], object]) -> None:
    """Load the job's program among `names`, which become its own, and write a record for that and for each input.

    The names are not copied first: this process is the program's, and a copy would touch every one of them.
    """
    reserve = [bytes(RESERVE)]
    if "random" in sys.modules:  # allowed, but then alike for every program: a fork seeds it anew
        sys.modules["random"].seed(0)
    program, inputs = wire.unpack_job(body)
    try:
        exec(compile(program, NAME, "exec", dont_inherit=True), names)
        solve = names.get("solve")
        if not callable(solve):
            raise NameError("the program defines no function solve(grid)")
    except BaseException as error:  # whatever it is, it is the program's
        reserve.clear()
        write(_fault(error, loading=True))
        return
    write(bytes((wire.LOADED,)))
    for grid in inputs:
        try:
            answer = solve(grid)
        except BaseException as error:
            reserve.clear()
            record = _fault(error)
        else:
            record = _record(answer)
        write(record)


def builtins_for(modules: tuple[str, ...]) -> dict[str, object]:
    """Python's builtins without those that are FORBIDDEN, and an import of `modules` alone."""
    names = {name: value for name, value in vars(builtins).items() if not name.startswith("__")}
    names |= {name: _stub(name) for name in FORBIDDEN}
    return {
        **names,
        "print": lambda *_, **__: None,
        "__build_class__": __build_class__,
        "__import__": _importer(modules),
    }


def _importer(modules: tuple[str, ...]) -> Callable:
    allowed = ", ".join(modules)

    def __import__(name, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002
        top = str(name).partition(".")[0]
        if level or top not in modules or name not in sys.modules:
            raise Forbidden(f"import {name}: a program may import {allowed}")
        return sys.modules[name if fromlist else top]

    return __import__


def _stub(name: str) -> Callable:
    def forbidden(*_: object, **__: object) -> None:
        raise Forbidden(f"{name}() is not for programs")

    return forbidden


def _record(answer: object) -> bytes:
    try:
        return wire.pack_grid(answer)
    except ValueError as error:
        return wire.pack_fault("bad_output", None, str(error))
    except BaseException as error:
        return _fault(error)


def _fault(error: BaseException, *, loading: bool = False) -> bytes:
    """The record of an exception; the exception may be of a class that fights being looked at."""
    try:
        if loading and isinstance(error, SyntaxError):
            return wire.pack_fault("syntax", error.lineno, str(error.msg))
        if loading and isinstance(error, (ValueError, OverflowError)) and _line(error) is None:
            return wire.pack_fault("syntax", None, str(error))  # a null byte, half a surrogate pair
        kind = "runtime"
        if isinstance(error, (Forbidden, PermissionError)):
            kind = "forbidden"
        elif isinstance(error, MemoryError):
            kind = "memory"
        said = str(error)
        name = type(error).__name__
        message = said if isinstance(error, Forbidden) else f"{name}: {said}" if said else name
        return wire.pack_fault(kind, _line(error), message)
    except MemoryError:
        return NO_MEMORY
    except BaseException:
        return wire.pack_fault("runtime", None, "an exception that cannot be shown")


def _line(error: BaseException) -> int | None:
    """The program's line that was being run."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
