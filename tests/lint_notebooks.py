"""Notebook lint: every code cell parses, none defines or catches, names are bound in order, no outputs are kept.

Run as a script on notebooks (`make lint`), or use `faults` (tests/test_notebooks.py).
"""

from __future__ import annotations

import ast
import builtins
import sys
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

FORBIDDEN = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.Try)
FROM_IPYTHON = {"display", "get_ipython"}


def faults(notebook: nbformat.NotebookNode) -> list[str]:
    """What is wrong with a notebook, a line each; empty where nothing is."""
    found = []
    bound = set(dir(builtins)) | FROM_IPYTHON
    forms = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(forms) != 1:
        found.append(f"{len(forms)} cells are tagged 'parameters'; expected the one settings form")
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.outputs or cell.execution_count:
            found.append(f"cell {number} is committed with its outputs")
        try:
            tree = ast.parse(TransformerManager().transform_cell(cell.source))
        except SyntaxError as error:
            found.append(f"cell {number} does not parse: {error}")
            continue
        for node in ast.walk(tree):
            if isinstance(node, FORBIDDEN):
                found.append(f"cell {number} line {node.lineno}: {type(node).__name__} belongs in utils")
        for statement in tree.body:
            found += [f"cell {number}: {name} is used before it is bound" for name in _unbound(statement, bound)]
            bound |= _stored(statement)
    return found


def _unbound(statement: ast.stmt, bound: set[str]) -> list[str]:
    inside = (
        _stored(statement) if not isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr) else _targets(statement)
    )
    loaded = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return sorted(loaded - bound - inside)


def _targets(statement: ast.stmt) -> set[str]:
    """Names that comprehensions inside a statement bind for themselves."""
    loops = [node.target for node in ast.walk(statement) if isinstance(node, ast.comprehension)]
    return {node.id for target in loops for node in ast.walk(target) if isinstance(node, ast.Name)}


def _stored(statement: ast.stmt) -> set[str]:
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


if __name__ == "__main__":
    lines = [f"{path}: {fault}" for path in sys.argv[1:] for fault in faults(nbformat.read(Path(path), as_version=4))]
    print("\n".join(lines) or f"{len(sys.argv) - 1} notebook(s) are clean")
    sys.exit(bool(lines))
