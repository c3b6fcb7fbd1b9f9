"""Whether a program holds a grid as numbers, or as text: all that stands in it is counted, in whatever form.

A number counts as its digits, a text as its characters, True and False as one each. Docstrings and messages that
nothing reads count nothing. Leaves out how much is too much for a task (`rl.tricks`).
"""

from __future__ import annotations

import ast
import re

from utils.rl.syntax import messages, nodes


def values_held(tree: ast.Module) -> int:
    """Digits of all numbers and characters of all texts in a program."""
    said = {id(one) for one in messages(tree)}
    constants = (node for node in nodes(tree) if isinstance(node, ast.Constant) and id(node) not in said)
    return sum(_values(node.value) for node in constants)


def _values(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, int) and value.bit_length() > 64:
        return int(value.bit_length() * 0.30103) + 1  # about: Python refuses to write the longest ones
    if isinstance(value, bool):
        return 1
    return len(re.findall("[0-9]", repr(value))) if isinstance(value, (int, float, complex)) else 0


def grid_held(tree: ast.Module) -> int:
    """Cells of the largest list of lists of colours that is written out."""
    cells = 0
    for node in nodes(tree):
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)) and all(isinstance(row, ast.List) for row in node.elts):
            row_cells = [cell for row in node.elts for cell in row.elts]
            cells = max(cells, len(row_cells) if all(map(_is_colour, row_cells)) else 0)
    return cells


def _is_colour(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and 0 <= node.value <= 9
