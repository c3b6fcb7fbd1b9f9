"""The floors of DESIGN.md: a module imports only from floors below its own package's, never sideways or upward."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "__init__": -1,  # utils/__init__.py: imports nothing of the package
    "core": 0,
    "data": 1,
    "models": 1,
    "arc": 1,
    "experiments": 1,
    "validation": 2,
    "training": 2,
    "publish": 2,
    "vae": 3,
    "rl": 3,
    "cli": 4,
    "__main__": 4,
}
ONE = {"__main__": "cli"}  # `python -m utils` is the command line, in the file that Python asks for


def imported(tree: ast.AST, package: tuple[str, ...]) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a module of `package`, at any depth, relative ones resolved."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
    return found


def offences(root: Path) -> list[str]:
    """A line for each import under `root`/utils that the table forbids, and for each package it does not have."""
    found = []
    for path in sorted((root / "utils").rglob("*.py")):
        place = path.relative_to(root)
        own = place.parts[1].removesuffix(".py")
        if own not in FLOORS:
            found.append(f"{place}: {own} is not in the table of floors")
            continue
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8")), place.parts[:-1]):
            package, _, rest = name.partition(".")
            other = rest.partition(".")[0]
            if package != "utils" or not other or ONE.get(own, own) == ONE.get(other, other):
                continue
            if other not in FLOORS:
                found.append(f"{place}:{line}: {name}: {other} is not in the table of floors")
            elif FLOORS[other] >= FLOORS[own]:
                way = "sideways" if FLOORS[other] == FLOORS[own] else "upward"
                found.append(f"{place}:{line}: {name} is {way}: floor {FLOORS[own]} imports floor {FLOORS[other]}")
    return found


def test_no_module_imports_upward_or_sideways():
    assert len(list((ROOT / "utils").rglob("*.py"))) > 10
    assert not offences(ROOT), "\n".join(offences(ROOT))


@pytest.mark.parametrize(
    ("path", "source", "offence"),
    [
        ("core/run.py", "import os\nimport utils.training.fit\n", ":2: utils.training.fit is upward: floor 0 .* 2"),
        ("data/text.py", "def f():\n    from utils.models import blocks\n", ":2: utils.models.blocks is sideways"),
        ("data/text.py", "if TYPE_CHECKING:\n    from utils import arc, core\n", ":2: utils.arc is sideways"),
        ("models/vit/head.py", "from ...data import text\n", ":1: utils.data.text is sideways"),
        ("__init__.py", "from .core import run\n", ":1: utils.core.run is upward"),
        ("vae/model.py", "from utils.gan import loss\n", ":1: utils.gan.loss: gan is not in the table"),
        ("gan/model.py", "import os\n", ": gan is not in the table"),
    ],
)
def test_the_check_names_the_place_of_an_import_that_is_not_allowed(tmp_path, path, source, offence):
    file = tmp_path / "utils" / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    (found,) = offences(tmp_path)
    assert re.match(rf"utils/{path}{offence}", found)


def test_the_check_allows_what_lies_below_and_what_is_near(tmp_path):
    for path, source in {
        "data/text.py": "from utils.core import run\nfrom . import loaders\nfrom ..core.run import Run\nimport utils\n",
        "__main__.py": "from utils.cli import main\n",
        "rl/ppo.py": "import utils_of_another, torch.utils.data\nfrom utils.training.fit import fit\n",
    }.items():
        file = tmp_path / "utils" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    assert offences(tmp_path) == []
