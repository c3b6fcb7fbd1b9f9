"""What stands in a program's text: its syntax tree, the nodes that do something, the names that are its own.

Leaves out what is made of them (`rl.literals`, `rl.peeking`, `rl.tricks`).
"""

from __future__ import annotations

import ast
import builtins
import symtable
import warnings


def parsed(program: str) -> ast.Module | None:
    """The syntax tree; None for what is no Python, or too deeply nested or too large for the parser."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes and the like in a text that is only looked at
        try:
            return ast.parse(program)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def nodes(tree: ast.Module) -> list[ast.AST]:
    """Every node but the texts that stand alone, such as docstrings."""
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node for node in ast.walk(tree) if id(node) not in notes or not isinstance(node, ast.Constant)]


def own_names(tree: ast.Module) -> set[str]:
    """Names that the program gives to something of its own."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
    return found


def outer_names(tree: ast.Module) -> set[str]:
    """Names that are read somewhere where no function binds them: those of the module, of a class, or built in.

    Raises RecursionError for a tree that is too deep.
    """
    found, left = set(), [symtable.symtable(ast.unparse(tree), "program", "exec")]
    while left:
        table = left.pop()
        left += table.get_children()
        inside = table.get_type() == "function"
        symbols = (one for one in table.get_symbols() if one.is_referenced())
        found |= {one.get_name() for one in symbols if not inside or one.is_global()}
    return found


def messages(tree: ast.Module) -> list[ast.Constant]:
    """The texts that are printed, asserted or raised, as far as nothing in the program can read them again."""
    walked = list(ast.walk(tree))
    if any(isinstance(node, ast.ExceptHandler) and node.name for node in walked):
        return []
    taken = own_names(tree) | {node.asname or node.name for node in walked if isinstance(node, ast.alias)}
    if any(name.endswith("exit__") for name in taken):  # it gets what is raised
        return []
    said: list[ast.expr] = []
    for node in walked:
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(node, ast.Assert) and node.msg is not None:
            said.append(node.msg)
        elif isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id not in taken:
            named = isinstance(node, ast.Raise) and hasattr(builtins, call.func.id)
            said += call.args if named or call.func.id == "print" else []
    parts = [part for one in said for part in (one.values if isinstance(one, ast.JoinedStr) else [one])]
    return [part for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
