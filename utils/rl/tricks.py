"""Tricks: programs that cannot have understood their task, whatever they get right.

One returns its input, returns one grid for all, holds grids as numbers, or looks into the interpreter. Leaves out what
it costs (`rl.reward`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from utils.arc.tasks import Pair

Trick = Literal["", "identity", "constant", "literal", "peeking"]
TRICKS = ("identity", "constant", "literal", "peeking")


def trick_of(
    tree: ast.Module, outputs: Sequence[np.ndarray | None], pairs: Sequence[Pair], *, cells: int, values: int
) -> Trick:
    """By what a program does and what stands in it; apart from peeking, only where it gave some grid.

    It holds a grid where a list of lists has as many `cells` of colours, or a list, a text or a number as many `values`
    (digits). `outputs` are what it makes of the inputs of `pairs`.

    On pairs whose outputs are their inputs, or all one grid, the right program does as identity or constant does: the
    former counts as a trick all the same, the latter only where the argument is ignored.
    """
    if _peeks(tree):
        return "peeking"
    given = [(output, pair) for output, pair in zip(outputs, pairs) if output is not None]
    if not given:
        return ""
    if _holds_grid(tree, cells, values):
        return "literal"
    if all(np.array_equal(output, pair.input) for output, pair in given):
        return "identity"
    alike = _alike([output for output, _ in given])
    varied = not _alike([pair.input for _, pair in given]) and not _alike([pair.output for _, pair in given])
    return "constant" if (alike and varied) or _ignores_argument(tree) else ""


def _alike(grids: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(grid, grids[0]) for grid in grids[1:])


def _ignores_argument(tree: ast.Module) -> bool:
    """Whether `solve` never reads its argument, or first puts something else in its place."""
    solve = next(filter(None, map(_solve, reversed(tree.body))), None)
    if solve is None:
        return False
    arguments = solve.args
    names = {one.arg for one in (*arguments.posonlyargs, *arguments.args, arguments.vararg) if one}
    for statement in solve.body if isinstance(solve, ast.FunctionDef) else [solve.body]:
        found = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id in names]
        if any(isinstance(node.ctx, ast.Load) for node in found):
            return False
        if found and isinstance(statement, ast.Assign):
            return True
    return True


def _solve(statement: ast.stmt) -> ast.FunctionDef | ast.Lambda | None:
    """What a statement binds to the name solve, where that is a function written out."""
    if isinstance(statement, ast.FunctionDef) and statement.name == "solve":
        return statement
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    named = any(isinstance(one, ast.Name) and one.id == "solve" for one in targets)
    return statement.value if named and isinstance(getattr(statement, "value", None), ast.Lambda) else None


def _holds_grid(tree: ast.Module, cells: int, values: int) -> bool:
    """Whether a grid, a long list of numbers, or a long row of digits stands in the program."""
    for node in _nodes(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
            if _count(node) >= values:
                return True
            rows = getattr(node, "elts", [])
            colours = all(isinstance(row, ast.List) and all(map(_is_colour, row.elts)) for row in rows)
            if colours and sum(len(row.elts) for row in rows) >= cells:
                return True
        elif isinstance(node, ast.Constant) and _digits(node.value) >= values:
            return True
    return False


def _nodes(tree: ast.Module) -> list[ast.AST]:
    """Every node but the texts that stand alone, such as docstrings."""
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node for node in ast.walk(tree) if id(node) not in notes or not isinstance(node, ast.Constant)]


def _is_colour(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= 9


def _count(display: ast.expr) -> int:
    """Whole numbers in a list, tuple, set or dict and in those inside it."""
    count, left = 0, [display]
    while left:
        node = left.pop()
        if isinstance(node, ast.Dict):
            left += [key for key in node.keys if key is not None] + node.values
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            left += node.elts
        elif isinstance(node, ast.UnaryOp):
            left.append(node.operand)
        else:
            count += isinstance(node, ast.Constant) and type(node.value) is int
    return count


def _digits(value: object) -> int:
    """Decimal digits in a text, or (about) of a whole number; bytes up to 9 count as digits too."""
    if isinstance(value, str):
        return sum(character.isdecimal() for character in value)
    if isinstance(value, bytes):
        return sum(byte <= 9 or 48 <= byte <= 57 for byte in value)
    return int(value.bit_length() * 0.30103) + 1 if type(value) is int else 0


# What leads from a program to its interpreter, its frames and its callers.
_MODULES = {
    "builtins", "code", "ctypes", "dis", "faulthandler", "gc", "importlib", "inspect", "pdb", "traceback",
    "tracemalloc",
}  # fmt: skip
_ATTRIBUTES = {
    "_current_frames", "_getframe", "_getframemodulename", "ag_frame", "cr_frame", "exc_info", "f_back", "f_builtins",
    "f_code", "f_globals", "f_locals", "gi_frame", "modules", "setprofile", "settrace", "tb_frame", "tb_next",
}  # fmt: skip
_FUNCTIONS = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "locals", "open", "vars"}
_HARMLESS = {"__doc__", "__init__", "__len__", "__main__", "__name__"}


def _peeks(tree: ast.Module) -> bool:
    """Whether the program names a way to its interpreter, its frames or its callers, or makes one up as it runs."""
    nodes = _nodes(tree)
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found = any(name.partition(".")[0] in _MODULES or name in _ATTRIBUTES for name in names)
        elif isinstance(node, ast.Attribute):
            found = _leads_out(node.attr)
        elif isinstance(node, ast.Name):
            found = node.id not in own and (node.id in _FUNCTIONS or _leads_out(node.id))
        elif isinstance(node, ast.Call):  # getattr of a name that does not stand there
            named = isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr")
            found = named and not _is_text(node.args[1:2])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # for getattr, or in a format
            found = any(_leads_out(part) for part in re.split(r"\W+", node.value))
        else:
            found = False
        if found:
            return True
    return False


def _leads_out(name: str) -> bool:
    dunder = len(name) > 4 and name.startswith("__") and name.endswith("__")
    return name in _ATTRIBUTES or (dunder and name not in _HARMLESS)


def _is_text(arguments: Sequence[ast.expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str)
