"""Corpora: one name in, one text out, with where it came from and its sha256.

    python-docs          the language reference inside CPython (`pydoc_data.topics`), about 465,000 characters
    tiny-shakespeare     1,115,394 characters, downloaded once, checked, cached
    path/to/file.txt     any UTF-8 text file
    hf:NAME              a Hugging Face dataset (hub id or local folder) with a text column

Nothing is taken in place of a corpus that cannot be had.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.core.config import Config, ConfigError
from utils.data.retries import with_retries

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
BUILT_IN = ("python-docs", "tiny-shakespeare")
TABLES = (".csv", ".tsv", ".jsonl", ".parquet")


class CorpusError(ConfigError):
    """A corpus that cannot be had or used; the message says what came and what to do."""


@dataclass(frozen=True)
class Corpus:
    """A text and its origin."""

    text: str
    source: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


class CorpusConfig(Config):
    """Which text to learn from."""

    corpus: str = "python-docs"
    """python-docs, tiny-shakespeare, the path of a UTF-8 text file, or hf:NAME"""
    hf_config: str | None = None
    """configuration of a Hugging Face dataset, such as wikitext-2-raw-v1"""
    hf_split: str = "train"
    """split of a Hugging Face dataset to take the text from (it is split again by `splits`)"""
    hf_column: str = "text"
    """column of a Hugging Face dataset that holds the text"""


def load_corpus(config: CorpusConfig) -> Corpus:
    """The corpus that `config.corpus` names. Raises `CorpusError` where there is none."""
    name = config.corpus
    if name == "python-docs":
        return _python_docs()
    if name == "tiny-shakespeare":
        return Corpus(read_text(_tiny_shakespeare()), SHAKESPEARE_URL)
    if name.startswith("hf:"):
        return _hugging_face(config)
    path = Path(name).expanduser().resolve()
    if holds_rows(name):
        raise CorpusError(
            f"{name!r} is a {'folder' if path.is_dir() else f'{path.suffix} file'}, and a corpus is one text. Give it"
            f" to a recipe that learns from rows, such as gpt_wikitext: rows.source={name}, and the column to learn"
            " from in rows.text."
        )
    if not path.is_file():
        raise CorpusError(
            f"No corpus {name!r}: expected python-docs, tiny-shakespeare, hf:NAME, or a text file's path."
        )
    return Corpus(read_text(path), str(path))


def holds_rows(name: str) -> bool:
    """Whether a corpus of this name would be rows (a table, or a folder of files), which `data.rows` reads."""
    path = Path(name).expanduser()
    named = name in ("", *BUILT_IN) or name.startswith("hf:")
    return not named and (path.suffix in TABLES or path.is_dir())


def read_text(path: Path) -> str:
    """A UTF-8 file as text, its line ends as `\\n`. Raises `CorpusError` for another encoding or an empty file."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}. Save it as UTF-8, or convert"
            " it with: iconv -f ORIGINAL_ENCODING -t utf-8"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise CorpusError(f"{path} is empty ({len(data)} bytes); expected text to learn from.")
    return text


def _python_docs() -> Corpus:
    import platform
    from pydoc_data.topics import topics

    return Corpus(
        "\n\n".join(topics[name].strip() for name in sorted(topics)),
        f"CPython {platform.python_version()}, pydoc_data.topics",
    )


def _tiny_shakespeare() -> Path:
    from torch.hub import download_url_to_file

    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "run-all"
    path = cache / "tinyshakespeare.txt"
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHAKESPEARE_SHA256:
        return path
    cache.mkdir(parents=True, exist_ok=True)

    def download() -> None:
        download_url_to_file(SHAKESPEARE_URL, str(path), hash_prefix=SHAKESPEARE_SHA256, progress=False)

    try:
        with_retries(download, "Downloading tiny-shakespeare")
    except (OSError, RuntimeError) as error:  # no network, or another hash
        raise CorpusError(
            f"tiny-shakespeare could not be downloaded from {SHAKESPEARE_URL}: {error}. Try again, put the file at"
            f" {path}, or choose the corpus python-docs, which needs no network."
        ) from error
    return path


def _hugging_face(config: CorpusConfig) -> Corpus:
    from datasets import load_dataset

    name = config.corpus.removeprefix("hf:")

    def read() -> Any:
        return load_dataset(name, config.hf_config, split=config.hf_split)

    try:
        rows = with_retries(read, f"Reading {config.corpus}")
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(f"Hugging Face dataset {name!r} could not be loaded: {error}") from error
    if config.hf_column not in rows.column_names:
        raise CorpusError(
            f"{name!r} has no column {config.hf_column!r}; its columns: {', '.join(rows.column_names)}."
            " Name one of them: data.hf_column=..."
        )
    odd = next((row for row in rows[config.hf_column] if row is not None and not isinstance(row, str)), None)
    if odd is not None:
        raise CorpusError(f"Column {config.hf_column!r} of {name!r} holds {type(odd).__name__}, not text: {odd!r:.60}")
    text = "\n".join(row for row in rows[config.hf_column] if row)
    if not text.strip():
        raise CorpusError(f"Column {config.hf_column!r} of {name!r} is empty.")
    return Corpus(text, f"{config.corpus} {config.hf_config or ''} [{config.hf_split}], column {config.hf_column}")
