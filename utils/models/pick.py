"""`Pick`: which function or class of a Python file is its model, and why that one.

`build_model()`, else the class that `model_name` names, else the one `nn.Module` that no other module of the file uses.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from utils.models.found import SourceError
from utils.models.imported import Package


@dataclass(frozen=True)
class Pick:
    """What to call for the model. `why` completes the sentence "GPT, ..."."""

    call: Callable[..., Any]
    name: str
    why: str


def pick(package: Package, module: ModuleType, text: str, file: str, model_name: Any = "") -> Pick:
    """The model of `module`, whose source is `text`. Raises where no class, or more than one, can be meant."""
    function = vars(module).get("build_model")
    if callable(function) and package.owns(function):
        return Pick(function, "build_model", f"the function {file} has for this")
    classes = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and package.owns(value)
    }
    missed = ""
    if model_name:
        if model_name in classes:
            return Pick(classes[model_name], model_name, "the class that model_name names")
        missed = f"; model_name is {model_name!r}, which names no nn.Module of {file}"
    own = [name for name, value in classes.items() if value.__module__ == module.__name__ and value.__name__ == name]
    if not own:
        raise SourceError(
            f"{file} has no build_model() and defines no nn.Module{missed}; add a class of the model to it."
        )
    unused = [name for name in own if name not in _used_by_others(ast.parse(text.encode()), own)]
    if len(unused) == 1:
        why = "the only nn.Module" if len(own) == 1 else "the one nn.Module that no other one uses"
        return Pick(classes[unused[0]], unused[0], f"{why} in {file}{missed}")
    every = "every nn.Module is used by another one" if not unused else "more than one could be the model"
    raise SourceError(
        f"{file}: {every}: {', '.join(unused or own)}{missed}. Set model_name to the one meant, in config.json or in "
        "the overrides, or add build_model()."
    )


def _used_by_others(tree: ast.Module, classes: list[str]) -> set[str]:
    """The classes that another of them needs: as a base, by name in its body, or by way of a function or a table."""
    names: dict[str, set[str]] = {}
    for statement in _statements(tree.body):
        made = getattr(getattr(statement, "value", None), "func", None)
        if isinstance(made, ast.Name) and made.id in classes:
            continue  # `model = GPT()`: an instance made for a try-out
        used = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        for name in _defined(statement):
            names.setdefault(name, set()).update(used)
    found = set()
    for start in classes:
        reached, waiting = {start}, [start]
        while waiting:
            for name in names.get(waiting.pop(), set()) - reached:
                reached.add(name)
                if name not in classes:  # what a class uses in turn is its own affair
                    waiting.append(name)
        found |= reached - {start}
    return found & set(classes)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The top-level statements, those under an `if` or a `try` included, but not what only `python file.py` runs."""
    for statement in body:
        if isinstance(statement, (ast.If, ast.Try)):
            if isinstance(statement, ast.Try) or "__name__" not in ast.unparse(statement.test):
                handlers = [one for handler in getattr(statement, "handlers", []) for one in handler.body]
                yield from _statements([*statement.body, *handlers, *statement.orelse])
        else:
            yield statement


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement gives a meaning to."""
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [statement.name]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]
