"""Whether a program names a way to its interpreter, its frames or its callers, or makes a name up as it runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from utils.rl.syntax import nodes, outer_names, own_names

_MODULES = {
    "builtins", "code", "ctypes", "dis", "faulthandler", "gc", "importlib", "inspect", "pdb", "traceback",
    "tracemalloc",
}  # fmt: skip
_ATTRIBUTES = {
    "_current_frames", "_getframe", "_getframemodulename", "_sys", "ag_frame", "cr_frame", "exc_info", "f_back",
    "f_builtins", "f_code", "f_globals", "f_locals", "gi_frame", "modules", "setprofile", "settrace", "tb_frame",
    "tb_next",
}  # fmt: skip
_FUNCTIONS = {"__import__", "breakpoint", "compile", "eval", "exec", "globals", "locals", "open", "vars"}
_HARMLESS = {"__init__", "__len__", "__main__", "__name__"}
# What reads a name that it is given, and which of its arguments is the name.
_READERS = {"getattr": 1, "setattr": 1, "delattr": 1, "attrgetter": 0, "methodcaller": 0}
_FORMATS = ("format", "format_map")  # names stand in the text, too


def peeks(tree: ast.Module) -> bool:
    """Whether anything in it does; a name is harmless where it is the program's own."""
    read = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _reads_text(node)}
    looked_at, own = [node for node in nodes(tree) if id(node) not in read], own_names(tree)
    if own & (_FUNCTIONS | _READERS.keys()):
        try:
            own -= outer_names(tree)
        except RecursionError:  # too tangled to tell its names from those that are built in
            return True
    return any(_looks_out(node, own) for node in looked_at)


def _looks_out(node: ast.AST, own: set[str]) -> bool:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        return any(name.partition(".")[0] in _MODULES or name in _ATTRIBUTES or name in _READERS for name in names)
    if isinstance(node, ast.Attribute):
        return _leads_out(node.attr) or node.attr in _READERS or node.attr in _FORMATS
    if isinstance(node, ast.Name):
        found = node.id in _FUNCTIONS or node.id in _READERS or _leads_out(node.id)
        return node.id == "__match_args__" or (found and node.id not in own)
    if isinstance(node, ast.MatchClass):
        return any(map(_leads_out, node.kwd_attrs))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):  # for getattr, or in a format
        return any(_leads_out(part) for part in re.split(r"\W+", node.value))
    return False


def _reads_text(call: ast.Call) -> bool:
    """Whether it reads a name, or fills a format, that stands there as a text, which is looked at by itself."""
    if isinstance(call.func, ast.Attribute) and call.func.attr in _FORMATS:
        return _is_text([call.func.value])
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    at = _READERS.get(name)
    return at is not None and _is_text(call.args[at:]) and (at == 1 or len(call.args) == 1 or name == "methodcaller")


def _leads_out(name: str) -> bool:
    dunder = len(name) > 4 and name.startswith("__") and name.endswith("__")
    return name in _ATTRIBUTES or (dunder and name not in _HARMLESS)


def _is_text(nodes: Sequence[ast.expr]) -> bool:
    return bool(nodes) and isinstance(nodes[0], ast.Constant) and isinstance(nodes[0].value, str)
