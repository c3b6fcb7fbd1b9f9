"""`named`: a class of our models or tokenizers by its name, as folders from anywhere give it. Copied into exports.

Leaves out weights and tokenizers (`publish.loading`).
"""

from __future__ import annotations

import importlib
import re
from typing import Any

ROOT = __name__.removesuffix(".models.named")  # of the code here: as a copy, or as it was written


def named(name: str, methods: tuple[str, ...]) -> Any:
    """The class that `utils.package.module:Name` names, in the copy of the code that this file lies in.

    A folder may come from anywhere, so nothing else can be named: raises ValueError for what is no class, for one that
    the module only imports, and for one without these methods.
    """
    module, _, attribute = name.partition(":")
    found = None
    if re.fullmatch(r"utils\.(models|data|vae|rl)\.[a-z]\w*", module) and attribute.isidentifier():
        place = f"{ROOT}.{module.removeprefix('utils.')}"
        found = getattr(importlib.import_module(place), attribute, None)
    own = isinstance(found, type) and found.__module__ == place
    if not own or not all(callable(getattr(found, one, None)) for one in methods):
        raise ValueError(f"{name!r} came; expected a class of our models or tokenizers, with {', '.join(methods)}.")
    return found
