"""Tricks: programs that cannot have understood their task, whatever they get right.

One returns its input, returns one grid for all, holds grids as numbers (`rl.literals`), or looks into the interpreter
(`rl.peeking`). Leaves out what it costs (`rl.reward`).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Literal

import numpy as np

from utils.arc.tasks import Pair
from utils.rl.literals import grid_held, values_held
from utils.rl.peeking import peeks

Trick = Literal["", "identity", "constant", "literal", "peeking"]
TRICKS = ("identity", "constant", "literal", "peeking")
Given = list[tuple[np.ndarray, Pair]]  # outputs that are grids, and the pairs whose inputs they were made of


def trick_of(
    tree: ast.Module,
    outputs: Sequence[np.ndarray | None],
    hidden: Sequence[Pair],
    shown: Sequence[Pair] = (),
    *,
    cells: int,
    values: int,
) -> Trick:
    """By what a program does and what stands in it; apart from peeking, only where it gave some grid.

    `outputs` are what it makes of the inputs of `hidden`, then of `shown`.

    It holds a grid where a list of lists has as many `cells` of colours, or the whole program as many `values` (digits
    and characters); or, where it is not right on every shown pair, as many values as the smallest hidden output has
    cells, and `cells` at least. It does as identity or constant does on all pairs together; or, where it earns
    something and is not right on every shown pair, on the hidden ones alone, so that nothing is hidden by failing on
    the shown ones. (One that holds no value at all made its grid of the input: it is a constant on the hidden pairs
    alone only where it is right on all of them.)

    On pairs whose outputs are their inputs, or all one grid, the right program does as identity or constant does: the
    former counts as a trick all the same, the latter only where the argument is ignored.
    """
    if peeks(tree):
        return "peeking"
    given = _given(outputs, [*hidden, *shown])
    if not given:
        return ""
    fits = bool(shown) and _right(outputs[len(hidden) :], shown) == len(shown)
    least = max(cells, min(pair.output.size for pair in hidden))
    held, right = values_held(tree), _right(outputs, hidden)
    if grid_held(tree) >= cells or held >= (values if fits else min(values, least)):
        return "literal"
    alone = _given(outputs, hidden) if shown and not fits and right else []
    if _is_identity(given) or _is_identity(alone):
        return "identity"
    varied = not _alike([pair.output for _, pair in given])
    if (varied and _is_constant(given)) or _ignores_argument(tree):
        return "constant"
    return "constant" if _is_constant(alone) and (held or right == len(hidden)) else ""


def _given(outputs: Sequence[np.ndarray | None], pairs: Sequence[Pair]) -> Given:
    return [(output, pair) for output, pair in zip(outputs, pairs) if output is not None]


def _right(outputs: Sequence[np.ndarray | None], pairs: Sequence[Pair]) -> int:
    return sum(np.array_equal(output, pair.output) for output, pair in _given(outputs, pairs))


def _is_identity(given: Given) -> bool:
    return bool(given) and all(np.array_equal(output, pair.input) for output, pair in given)


def _is_constant(given: Given) -> bool:
    """One output for inputs that differ."""
    return _alike([output for output, _ in given]) and not _alike([pair.input for _, pair in given])


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
