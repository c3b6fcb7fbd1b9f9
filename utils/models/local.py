"""`find_path`: a model's Python file, or a folder that holds one, as a `Source`. Nothing of it is executed.

Leaves out folders that `save_pretrained` wrote (`models.huggingface`), exports and runs (`models.published`).
"""

from __future__ import annotations

import ast
from pathlib import Path

from utils.models import huggingface
from utils.models.exported import read_config
from utils.models.found import Source, SourceError, read_text
from utils.models.gist import MAIN
from utils.models.published import find_published


def find_path(path: Path) -> Source:
    """The model at a path: a `.py` file with the `config.json` beside it, or a folder. Raises where there is none."""
    path = path.expanduser().absolute()
    if not path.exists():
        raise SourceError(f"There is no file or folder at {path}.")
    if path.is_file():
        if path.suffix != ".py":
            raise SourceError(f"{path} is not a Python file; name a .py file, or the folder of a Hugging Face model.")
        return _found(path)
    published = find_published(path)
    if published is not None:
        return published
    main = next((path / name for name in MAIN if (path / name).is_file()), None)
    if main is not None:
        return _found(main)
    if (path / "config.json").is_file():
        return huggingface.find_folder(path)
    raise SourceError(
        f"The folder {path} holds no {', '.join(MAIN)} or config.json; name the file, or write hf:NAME for the "
        "Hugging Face model of that name."
    )


def _found(main: Path) -> Source:
    folder = main.parent
    files = {path.relative_to(folder).as_posix(): read_text(path) for path in _needed(main)}
    config = {}
    if (folder / "config.json").is_file():
        files["config.json"] = read_text(folder / "config.json")
        config = read_config(files["config.json"], str(folder / "config.json"))
    return Source(f"file:{main}", "file", {"path": str(main)}, files, config)


def _needed(main: Path) -> list[Path]:
    """The file, and those of its folder that it imports, directly or by way of others."""
    folder, found, waiting = main.parent, [], [main]
    while waiting:
        path = waiting.pop(0)
        if path in found:
            continue
        found.append(path)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue  # importing it says what is wrong, and where
        for node in ast.walk(tree):
            waiting += [file for name in _names(node, path, folder) for file in _files(folder, name)]
    return found


def _names(node: ast.AST, path: Path, folder: Path) -> list[str]:
    """The dotted names that an import may mean, from the folder."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = path.relative_to(folder).parts[: -node.level] if node.level else ()
    base = [*above, *([node.module] if node.module else [])]
    return [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]


def _files(folder: Path, name: str) -> list[Path]:
    """The files that importing a dotted name reads."""
    parts = name.split(".")
    places = [folder.joinpath(*parts[: count + 1]) for count in range(len(parts))] if name else []
    files = [file for place in places for file in (place.with_name(f"{place.name}.py"), place / "__init__.py")]
    return [file for file in files if file.is_file()]
