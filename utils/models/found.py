"""What asking for a model gives: a `Source` that was found, a `Loaded` model, or a `SourceError`.

Leaves out how each place is searched (`models.source`, `models.gist`, `models.huggingface`).
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from utils.core.config import ConfigError
from utils.models.facts import KINDS


class SourceError(ConfigError):
    """A model that cannot be found or built: what was asked for, what is wrong with it, and what to do."""


@dataclass(frozen=True)
class Listing:
    """Code that shows itself in colours, a fold for each file, the first one open."""

    files: dict[str, str]

    def __repr__(self) -> str:
        return "\n\n".join(f"# {name}\n{text}" for name, text in self.files.items()) or "no code"

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        style = HtmlFormatter(
            noclasses=True, style="friendly", cssstyles="color: #222; padding: .4em; overflow-x: auto"
        )
        folds = [
            f"<details{'' if number else ' open'}><summary>{html.escape(name)}, {len(text.splitlines())} lines"
            f"</summary>{highlight(text, PythonLexer(), style)}</details>"
            for number, (name, text) in enumerate(self.files.items())
        ]
        return "".join(folds) or "<p>No code: the class comes with transformers, the config decides the rest.</p>"


@dataclass(frozen=True)
class Source:
    """A model's code and config as they were found. Nothing of it has been executed."""

    name: str
    """as asked for, normalised: "example:gpt", "gist:ID", "file:/path/model.py", "hf:owner/name"; it finds it again"""
    where: Literal["example", "gist", "file", "hf", "published"]
    facts: dict[str, str] = field(default_factory=dict)
    """owner, revision, url, path ... whatever is known, for the report"""
    files: dict[str, str] = field(default_factory=dict)
    """file name -> text of the code and the config, the main file first"""
    config: dict[str, Any] = field(default_factory=dict)
    """what the source's config says"""

    @property
    def sha256(self) -> dict[str, str]:
        """File name -> the sha256 that `sha256sum` gives for the file."""
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.files.items()}

    @property
    def main(self) -> str:
        """Name of the main code file; "" where there is no code."""
        return next((name for name in self.files if name.endswith(".py")), "")

    @property
    def code(self) -> str:
        """Text of the main code file; "" where there is no code."""
        return self.files.get(self.main, "")

    @property
    def listing(self) -> Listing:
        """Every Python file, to be read before it runs."""
        return Listing({name: text for name, text in self.files.items() if name.endswith(".py")})

    def require_trust(self, trust_code: bool, what: str = "This code was written by others and would run here") -> None:
        """Refuse, saying whose code it is, unless `trust_code`."""
        if trust_code:
            return
        owner, revision = self.facts.get("owner", "an unknown owner"), self.facts.get("revision", "unknown")
        files = ", ".join(f"{name} (sha256 {sha})" for name, sha in self.sha256.items())
        raise SourceError(
            f"{self.name} by {owner} at revision {revision} holds {files}. {what}: read it, "
            "then tick trust_code (or --trust-code)."
        )

    def check_unchanged(self, folder: Path) -> None:
        """Refuse to go on where a file is not what it was when found: its sha256 would be another's."""
        for name, text in self.files.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != text.encode():
                raise SourceError(f"{path} has changed since it was found; find {self.name} again.")

    def _repr_html_(self) -> str:
        """Where it comes from, its files with their sha256, and its config."""
        facts = _rows({"source": self.name, **self.facts})
        files = _rows({name: f"sha256 {sha}" for name, sha in self.sha256.items()})
        config = _rows({key: repr(value) for key, value in self.config.items()})
        return (
            f"<table>{facts}{files}</table><details><summary>config: {len(self.config)} values</summary>"
            f"<table>{config}</table></details>"
        )


def _rows(values: dict[str, str]) -> str:
    return "".join(
        f'<tr><th style="text-align: left">{html.escape(key)}</th>'
        f'<td style="text-align: left; overflow-wrap: anywhere">{html.escape(value)}</td></tr>'
        for key, value in values.items()
    )


@dataclass(frozen=True)
class Loaded:
    """A model, and what is known of where it comes from and how it was made."""

    model: nn.Module
    source: Source
    config: dict[str, Any]
    """what the model was built with, overrides included"""
    kind: str
    """one of `KINDS`; "" where the source does not tell"""
    pretrained: bool
    """True where weights were loaded, False where they are newly drawn"""
    build: Callable[[], nn.Module]
    """a fresh instance of the same model, newly initialised from the generators as they are then"""
    chosen: str
    """one sentence: which class or function, and why it"""


def kind_of(model: nn.Module, declared: str) -> str:
    """The kind that is declared, or that the model's class carries as `kind`; "" for neither. Raises on a conflict."""
    check_kind(declared)
    own = getattr(type(model), "kind", "")
    own = own if isinstance(own, str) and own in KINDS else ""
    if declared and own and declared != own:
        raise SourceError(f"kind is {declared!r}, and {type(model).__name__} says it is {own!r}; leave kind empty.")
    return declared or own


def check_kind(kind: str) -> None:
    if kind and kind not in KINDS:
        raise SourceError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}, or empty to read it from the model.")


def read_text(path: Path) -> str:
    """The file's text, byte for byte."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8 text.") from None


def one_line(error: BaseException) -> str:
    """An exception's message without its line breaks, cut where it is long."""
    return " ".join(str(error).split())[:500]
