"""`Builder`: a model's class or function, called with what a config says.

Leaves out which class or function that is (`models.pick`) and what it is given (`models.arguments`).
"""

from __future__ import annotations

import contextlib
import copy
import difflib
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from utils.core.repro import preserved_rng, seed_generators
from utils.models.arguments import Arguments, Binder
from utils.models.exported import merge
from utils.models.facts import CHANNELS, CONTEXT, IMAGE_SIZE, PADDING, VOCABULARY
from utils.models.found import Loaded, Source, SourceError, kind_of
from utils.models.imported import Package
from utils.models.pick import pick

READ = {*VOCABULARY, *CONTEXT, *PADDING, *IMAGE_SIZE, *CHANNELS, "kind", "model_name"}


class Builder:
    """Calling it makes the model anew, from the config as it was given."""

    def __init__(
        self, package: Package, module: ModuleType, call: Callable[..., Any], name: str, config: Mapping[str, Any]
    ):
        self.package, self.binder, self.call, self.name = package, Binder(package, module), call, name
        self.config = copy.deepcopy(dict(config))

    def arguments(self) -> Arguments:
        config = copy.deepcopy(self.config)
        return self.package.call(lambda: self.binder.bind(self.call, self.name, config), f"the config of {self.name}")

    def __call__(self) -> nn.Module:
        arguments = self.arguments()
        model = self.package.call(
            lambda: self.call(*arguments.positional, **arguments.keywords), f"{self.name}({arguments})"
        )
        if not isinstance(model, nn.Module):
            raise SourceError(f"{self.name}() gave a {type(model).__name__}; expected a torch.nn.Module.")
        return model


def load_code(
    found: Source, package: Package, *, overrides: Mapping[str, Any], kind: str = "", seed: int = 0
) -> Loaded:
    """Import the main file of what was found, pick its model, and build it from the config and the overrides."""
    config = merge(found.config, overrides)
    with seeded(seed):
        module = package.module(found.main)
        picked = pick(package, module, found.code, found.main, config.get("model_name", ""))
        build = Builder(package, module, picked.call, picked.name, config)
        arguments = build.arguments()
        model = build()
    chosen = f"{picked.name}, {picked.why}; called with {arguments}"
    spare = arguments.spare(config)
    defaults = arguments.defaults(picked.call)
    wrong = [key for key in spare if key in overrides and key not in READ]
    if wrong:
        near = difflib.get_close_matches(wrong[0], [*arguments.taken, *defaults, *arguments.fields(), *READ], n=1)
        raise SourceError(
            f"Nothing in {picked.name} takes the setting {', '.join(wrong)}"
            + (f"; did you mean {near[0]}?" if near else f"; it takes {', '.join([*arguments.taken, *defaults])}.")
        )
    if spare:
        chosen += f"; nothing took {', '.join(spare)} of the config"
    return Loaded(model, found, {**defaults, **config}, kind_of(model, kind), False, build, f"{chosen}.")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """python, numpy and torch draw from `seed` inside, and are as they were afterwards."""
    with preserved_rng():
        seed_generators(seed)
        yield
