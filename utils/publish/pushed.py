"""`Push`: what is asked of a push; `Pushed`: what became of it, or would, as text and as a table of a notebook."""

from __future__ import annotations

import html
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.publish.outgoing import Change

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Push:
    """What is asked of a push, whatever is pushed."""

    repo_id: str
    kind: Kind = "model"
    private: bool | None = None
    """of a repository that is made; None: as the account's or organisation's default"""
    revision: str = "main"
    tag: str | None = None
    """in place of a version"""
    own_tags: tuple[str, ...] = ()
    """further tags, moved to the newest commit: the id of the experiment"""
    message: str = "Update"
    again: str = ""
    """the command that pushes once more"""


def again(command: str, path: Path, repo_id: str, *, private: bool | None, revision: str, tag: str | None) -> str:
    """The command line that pushes once more."""
    options = [] if private is None else ["--private" if private else "--public"]
    options += ["--revision", revision] if revision != "main" else []
    options += ["--tag", tag] if tag else []
    return shlex.join(["python", "-m", "utils", command, str(path), repo_id, *options])


@dataclass(frozen=True)
class Pushed:
    """A push that was done, or what it would do."""

    repo_id: str
    url: str
    revision: str
    commit: str
    """of the branch now; "" where there is none yet"""
    committed: bool
    """False where nothing had changed, and in a dry run"""
    tags: tuple[str, ...]
    files: list[Change]
    dry_run: bool = False
    note: str = ""

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {change}" for change, count in Counter(one.change for one in self.files).items())
        sent = sum(one.bytes for one in self.files if one.change in ("new", "changed", "unknown"))
        head = f"{self.url} at {self.commit[:7]}" if self.commit else self.url
        if self.dry_run:
            told = f"Dry run: {head} would get {size(sent)} on {self.revision}"
        elif self.committed:
            told = f"Published: {head}, {size(sent)} sent to {self.revision}"
        else:
            told = f"Nothing changed: {head} has it all, no commit was made"
        tags = f" Tags: {', '.join(self.tags)}." if self.tags else ""
        lines = [f"  {one.change:>8}  {size(one.bytes):>10}  {one.path}" for one in self.files]
        return "\n".join([f"{told} ({counts}).{tags}{' ' + self.note if self.note else ''}", *lines])

    def _repr_html_(self) -> str:
        head, _, _ = str(self).partition("\n")
        linked, url = html.escape(head), html.escape(self.url)
        if "/" in self.repo_id:  # without its owner the address is somebody else's
            linked = linked.replace(url, f'<a href="{url}">{url}</a>', 1)
        folders: dict[tuple[str, str], list[Change]] = {}
        for one in self.files:
            top, inside, _ = one.path.partition("/")
            folders.setdefault((one.change, top + inside), []).append(one)
        rows = "".join(
            f"<tr><td>{change}</td><td>{size(sum(one.bytes for one in inside))}</td>"
            f"<td style='text-align: left'><code>{html.escape(place)}</code>"
            f"{f' {len(inside)} files' if len(inside) > 1 else ''}</td></tr>"
            for (change, place), inside in folders.items()
        )
        return (
            f"<p>{linked}</p><table><tr><th></th><th>size</th><th style='text-align: left'>file</th></tr>{rows}</table>"
        )


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 1024:
        return f"{count} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024 or unit == "GiB":
            break
    return f"{count:.1f} {unit}"
