"""Small real tasks made from the source of Python's standard library: no network, no download, the same in every run.

    python-topics   text, label   a paragraph of a docstring -> which part of the library it is from (TOPICS)
    python-names    text, target  the first paragraph of a function's docstring -> its name, in words
    python-words    text, target  a name of the library, such as `getDefaultEncoding` -> its words, in lower case

Each has a column `group` (module, or the row's words), so that a split can keep what belongs together on one side. Rows
depend on the version of Python, which the source names. Files are parsed, never imported; private modules and tests
are left out.
"""

from __future__ import annotations

import ast
import functools
import platform
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.data.table import Table
from utils.data.text import CorpusError

# Parts of the library, after the chapters of its reference (https://docs.python.org/3/library/): modules and packages
# that are written in Python and there from 3.10 on.
TOPICS = {
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched selectors subprocess threading",
    "debugging": "bdb cProfile doctest faulthandler pdb profile pstats timeit trace traceback tracemalloc unittest",
    "files": "bz2 filecmp fileinput fnmatch glob gzip lzma os pathlib posixpath shutil stat tarfile tempfile zipfile",
    "language": "abc ast collections contextlib copy dataclasses dis enum functools importlib inspect pickle"
    " pickletools pkgutil pyclbr reprlib runpy symtable tokenize types typing weakref",
    "mail": "base64 email mailbox mimetypes quopri",
    "network": "ftplib http imaplib ipaddress poplib smtplib socket socketserver ssl urllib uuid wsgiref xmlrpc",
    "numbers": "_pydecimal bisect calendar colorsys datetime fractions heapq numbers random statistics",
    "text": "argparse cmd codecs configparser csv difflib encodings gettext html json locale logging pprint re shlex"
    " string textwrap xml",
}
LONGEST = 400  # characters of a text


class Part(NamedTuple):
    """A definition that has a docstring."""

    topic: str
    module: str
    name: str
    function: bool
    doc: str


def topics() -> Table:
    """python-topics: paragraphs of at least six words, each once."""
    rows: dict[str, tuple[str, str]] = {}
    for part in _library()[0]:
        for paragraph in part.doc.split("\n\n"):
            text = " ".join(paragraph.split())
            if len(text.split()) >= 6 and len(text) <= LONGEST and ">>>" not in text:
                rows.setdefault(text, (part.topic, part.module))
    labels, groups = zip(*rows.values())
    table = _table("python-topics", text=list(rows), label=list(labels), group=list(groups))
    return Table(table.columns, table.source, table.where, {"label": tuple(TOPICS)})


def names() -> Table:
    """python-names: public functions and methods whose docstring begins with at least three words."""
    rows: dict[tuple[str, str], str] = {}
    for part in _library()[0]:
        text = " ".join(part.doc.split("\n\n")[0].split())
        target = words_of(part.name)
        if part.function and not part.name.startswith("_") and len(text.split()) >= 3 and len(text) <= LONGEST:
            rows.setdefault((text, target), part.module)
    return _table(
        "python-names", text=[text for text, _ in rows], target=[name for _, name in rows], group=list(rows.values())
    )


def words() -> Table:
    """python-words: every name of the library's source that has at least two words, each once."""
    found = {name for name in _library()[1] if len(words_of(name).split()) >= 2 and name.isascii() and len(name) <= 40}
    rows = sorted(found)
    targets = [words_of(name) for name in rows]
    return _table("python-words", text=rows, target=targets, group=targets)


def words_of(name: str) -> str:
    """The words of an identifier: `getHTTPResponse_2` -> `get http response 2`."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


TASKS: dict[str, Callable[[], Table]] = {"python-topics": topics, "python-names": names, "python-words": words}


def _table(name: str, **columns: list[str]) -> Table:
    source = f"CPython {platform.python_version()}, {name}"
    return Table(columns, source, lambda row: f"{name}, row {row + 1}")


def _files() -> Iterator[tuple[str, str, Path]]:
    """(topic, module, file) of every file of the topics' modules, in the order of their names."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for topic, modules in TOPICS.items():
        for module in modules.split():
            folder = library / module
            paths = sorted(folder.rglob("*.py")) if folder.is_dir() else [library / f"{module}.py"]
            yield from ((topic, module, path) for path in paths if path.is_file() and not _is_test(path, library))


def _is_test(path: Path, library: Path) -> bool:
    return any(part in ("test", "tests") for part in path.relative_to(library).parts)


@functools.lru_cache(maxsize=1)
def _library() -> tuple[tuple[Part, ...], frozenset[str]]:
    """Every definition that has a docstring, in the order of the files; and every name in the source."""
    files = list(_files())
    if not files:
        raise CorpusError(
            f"The source of the standard library is not at {sysconfig.get_paths()['stdlib']}: this Python came without"
            " it. Use another source of rows: a file, a folder, or hf:NAME."
        )
    parts, found = [], set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for topic, module, path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, *functions)) and (doc := ast.get_docstring(node)):
                parts.append(Part(topic, module, getattr(node, "name", ""), isinstance(node, functions), doc))
            values = (getattr(node, field, None) for field in ("name", "id", "attr", "arg"))
            found.update(value.strip("_") for value in values if isinstance(value, str))
    return tuple(parts), frozenset(found)
