"""`Package`: a folder of someone's Python files, imported under a name of its own.

The files' imports of each other (`import layers`, `from layers import X`) are read as imports within that package, so
that two models with files of equal names do not meet, a file called `utils.py` hides nothing, and neither `sys.path`
nor `__pycache__` is touched. The text is run as it stands: source, tracebacks and line numbers are the files' own.
Leaves out isolation: imported code can do all that this process can.
"""

from __future__ import annotations

import ast
import atexit
import itertools
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from utils.models.found import SourceError, one_line

Result = TypeVar("Result")
_numbers = itertools.count()
_packages: dict[str, Package] = {}


class Package:
    """Python files in `folder`, importable as `name`.module."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.name = f"_model_source_{next(_numbers)}"
        package = ModuleType(self.name)
        package.__path__ = [str(self.folder)]
        sys.modules[self.name] = package
        _packages[self.name] = self
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)

    @classmethod
    def written(cls, files: Mapping[str, str]) -> Package:
        """A package of texts, in a temporary folder that lasts as long as the process."""
        folder = Path(tempfile.mkdtemp(prefix="model-source-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, text in files.items():
            (folder / name).write_bytes(text.encode())
        return cls(folder)

    def module(self, file: str) -> ModuleType:
        """Import a file of the folder."""
        name = f"{self.name}.{Path(file).stem.replace('.', '_')}"  # as its siblings import it, where they can
        path = str(self.folder / file)
        module = module_from_spec(spec_from_file_location(name, path, loader=_Loader(name, path)))
        sys.modules[name] = module
        try:
            self.call(lambda: module.__loader__.exec_module(module), f"importing {file}")
        except SourceError:
            del sys.modules[name]
            raise
        return module

    def call(self, function: Callable[[], Result], what: str) -> Result:
        """`function()`, where an exception of the folder's code becomes one line that says where it was raised."""
        try:
            return function()
        except SourceError:
            raise
        except (Exception, SystemExit) as error:
            message = one_line(error).replace(f"{self.name}.", "")
            fault = f"{what} raised {type(error).__name__}: {message}{self._place(error)}"
        raise SourceError(fault)

    def _place(self, error: BaseException) -> str:
        """` (model.py:12)`: the last line of the folder's own that was being run."""
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if self._owns(frame.filename)]
        if isinstance(error, SyntaxError) and error.filename and self._owns(error.filename):
            return f" ({self._relative(error.filename)}:{error.lineno})"
        return f" ({self._relative(own[-1].filename)}:{own[-1].lineno})" if own else ""

    def _owns(self, file: str) -> bool:
        return Path(file).is_relative_to(self.folder)

    def _relative(self, file: str) -> str:
        return Path(file).relative_to(self.folder).as_posix()

    def has(self, name: str) -> bool:
        """Whether `import name` in the folder's code means a file of the folder, as it would in `python model.py`."""
        place = self.folder / name
        if place.with_name(f"{name}.py").is_file() or (place / "__init__.py").is_file():
            return True
        return place.is_dir() and any(place.glob("*.py")) and PathFinder.find_spec(name) is None

    def owns(self, value: Any) -> bool:
        """Whether a class or function was defined in the folder's code."""
        return (getattr(value, "__module__", None) or "").startswith(f"{self.name}.")


class _Finder:
    """Finds the modules of the packages."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in _packages:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(name, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    """Compiles a file with its imports of the package's files turned to the package, and keeps no bytecode."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)

    def source_to_code(self, data: bytes, path: str) -> Any:  # type: ignore[override]
        tree = _Inward(_packages[self.name.partition(".")[0]]).visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class _Inward(ast.NodeTransformer):
    """Turns `import layers` into `import PACKAGE.layers as layers`, for names that the package has."""

    def __init__(self, package: Package):
        self.package = package

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        if node.level == 0 and self.package.has(node.module.partition(".")[0]):
            node.module = f"{self.package.name}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> list[ast.AST]:
        parts = [part for alias in node.names for part in self._parts(alias)]
        return [ast.copy_location(ast.Import([part]), node) for part in parts]

    def _parts(self, alias: ast.alias) -> list[ast.alias]:
        top, _, rest = alias.name.partition(".")
        if not self.package.has(top):
            return [alias]
        inward = f"{self.package.name}.{alias.name}"
        if alias.asname or not rest:
            return [ast.alias(inward, alias.asname or top)]
        return [ast.alias(inward, "_imported"), ast.alias(f"{self.package.name}.{top}", top)]  # `import a.b` binds a
