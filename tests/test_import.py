"""What importing the package loads and needs: `import utils` next to nothing, floors 0 and 1 no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCKED = ("lightning", "lightning_fabric", "wandb", "optuna", "transformers", "datasets")
LOWER = ("core", "data", "models", "arc", "experiments")


def python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_importing_utils_loads_no_torch_numpy_or_pydantic():
    script = "import json, sys; import utils; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python(script)))
    assert "utils" in loaded
    assert not loaded & {"torch", "numpy", "pydantic"}


def test_importing_utils_takes_under_a_fifth_of_a_second():
    """The issue's number: the best of three fresh processes, less that of a bare interpreter."""

    def seconds(script: str) -> float:
        start = time.perf_counter()
        python(script)
        return time.perf_counter() - start

    assert min(seconds("import utils") for _ in range(3)) - min(seconds("pass") for _ in range(3)) < 0.2


WITHOUT = """
import importlib, json, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

blocked, modules = json.loads(sys.argv[1])
sys.meta_path.insert(0, Block())
failed = []
for name in modules + blocked:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed.append(f"{name}: {error}")
print(json.dumps(failed))
"""


def test_floors_0_and_1_import_without_the_heavy_libraries():
    paths = [path for package in LOWER for path in sorted((ROOT / "utils" / package).rglob("*.py"))]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert {"utils.core.run", "utils.data.loaders", "utils.models.generate"} <= set(modules)
    failed = json.loads(python(WITHOUT, json.dumps([BLOCKED, modules])))
    assert failed == [f"{name}: {name} is blocked" for name in BLOCKED]  # the block works, and stops no module
