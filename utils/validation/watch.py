"""Which module is running: what lets an observation made inside a forward say where it was made."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


@contextlib.contextmanager
def running(model: nn.Module, done: Callable[[str, nn.Module, Any], None] | None = None) -> Iterator[list[str]]:
    """A list of the names of the modules that run, outermost first, kept up to date while inside.

    `done(name, module, output)` is called as each module without children returns. The root goes by its class's name,
    a module that stands at two places by the first. All hooks are removed at the end.
    """
    stack: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        shown = name or type(model).__name__
        leaf = done is not None and not any(True for _ in module.children())

        def enter(module: nn.Module, arguments: tuple, shown: str = shown) -> None:
            stack.append(shown)

        def leave(module: nn.Module, arguments: tuple, output: Any, shown: str = shown, leaf: bool = leaf) -> None:
            if leaf:
                done(shown, module, output)
            stack.pop()

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()
