"""The code of our models, copied beside their weights: the files that they import of ours, and no others.

Imports of each other become relative, so that the copy works under any name. Leaves out loading (`publish.loading`).
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from utils.models.exportable import Exportable

CODE = "model_code"
UTILS = Path(__file__).resolve().parents[1]
LOADING = "utils.publish.loading"
READING = ("utils.data.tokenizers", "utils.data.special")  # what makes ids of a text


def write_code(exportable: Exportable, folder: Path) -> list[Path]:
    """Copy the code of one of our models into `folder`/model_code, and give the files that were written."""
    code = folder / CODE
    written = []
    for name in closure(roots(exportable)):
        path = code / place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(relative(name), encoding="utf-8")
        written.append(path)
    for parent in sorted({path.parent for path in written} | {code}):
        if not (parent / "__init__.py").exists():
            (parent / "__init__.py").write_text(f'"""Code of {exportable.name}, copied from Run All."""\n')
            written.append(parent / "__init__.py")
    licence = UTILS.parent / "LICENSE"  # it asks to go with every copy
    if licence.is_file():
        written.append(Path(shutil.copyfile(licence, code / "LICENSE")))
    return sorted(written)


def roots(exportable: Exportable) -> list[str]:
    """The modules of ours that a folder needs: the model's, what loads it, and what makes and reads its text."""
    found = [LOADING, exportable.builds.partition(":")[0]]
    if exportable.tokenizer is not None:
        found += [*READING, *_tokenizer_module(exportable.tokenizer)]
    if exportable.kind == "causal_lm":
        found.append("utils.models.generate")
    return found


def _tokenizer_module(folder: Path) -> list[str]:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [content["class"].partition(":")[0]] if "class" in content else []


def closure(modules: Iterable[str]) -> list[str]:
    """Dotted names of the modules and of all of ours that they import, at any depth, in the order of their names."""
    found: set[str] = set()
    left = list(modules)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [one for one, _ in _imports(name) if one.startswith("utils.")]
    return sorted(found)


def third_party(modules: Iterable[str]) -> set[str]:
    """Top-level names of what modules of ours import, when they are imported, that is neither ours nor Python's."""
    names = {one.partition(".")[0] for name in modules for one, nested in _imports(name) if not nested}
    return names - {"utils", "__future__"} - sys.stdlib_module_names


def source(name: str) -> Path:
    """The file of one of our modules, `utils.package.module`."""
    return UTILS.joinpath(*name.split(".")[1:]).with_suffix(".py")


def place(name: str) -> Path:
    """Where a module's copy lies in the folder of code."""
    return Path("load.py") if name == LOADING else source(name).relative_to(UTILS)


def relative(name: str) -> str:
    """The module's text, its imports of ours made relative. Raises ValueError for `import utils`, which cannot."""
    text = source(name).read_text(encoding="utf-8")
    plain = re.search(r"^\s*import utils\b.*$", text, re.MULTILINE)
    if plain:
        raise ValueError(f"{source(name)}: {plain[0].strip()!r} cannot be copied; write from utils... import ...")
    dots = "." * len(place(name).parts)
    return re.sub(r"^(\s*from )utils\.?(?=[\w.]* import\b)", rf"\g<1>{dots}", text, flags=re.MULTILINE)


def _imports(name: str) -> Iterator[tuple[str, bool]]:
    """What a module imports: dotted names, and whether that is inside a function. For type checkers alone: left out."""

    def walk(node: ast.AST, nested: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from ((alias.name, nested) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [one for one in inside if node.module.startswith("utils") and source(one).is_file()]
            yield from ((one, nested) for one in modules or [node.module])
        deeper = nested or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deeper)

    yield from walk(ast.parse(source(name).read_text(encoding="utf-8")), False)
