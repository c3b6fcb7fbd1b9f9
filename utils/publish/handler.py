"""`EndpointHandler`: an export folder as the custom handler of Hugging Face's Inference Endpoints, and nothing else.

    handler = EndpointHandler("path/to/folder")
    handler({"inputs": "Once", "parameters": {"max_new_tokens": 20, "temperature": 0.8, "seed": 0}})

What it answers: handling/endpoint.py. This file and `handling` beside it are copied into the folder that they read;
they need torch and what the folder's loader needs. A folder of loader "ours" runs the code in its model_code/.
"""

from __future__ import annotations

import hashlib
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def _handling() -> str:
    """The name of the package `handling` beside this file: of a file that is in no package, one by its place, so that
    the packages of two folders are two."""
    if __package__:
        return f"{__package__}.handling"
    path = Path(__file__).resolve().parent / "handling"
    name = f"handling_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        spec = spec_from_file_location(name, path / "__init__.py", submodule_search_locations=[str(path)])
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return name


EndpointHandler = import_module(f"{_handling()}.endpoint").EndpointHandler
