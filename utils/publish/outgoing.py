"""`Outgoing`: a file that is to be published, and how it differs from what the repository has.

Read once for its checksums, and for secrets of this machine, which must not leave it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from utils.core.checksum import CHUNK
from utils.core.redact import secrets
from utils.publish.errors import Damaged, SecretInside

Difference = Literal["new", "changed", "same", "removed", "unknown"]


@dataclass(frozen=True)
class Change:
    """A file of a push: what it is called there, its size, and what becomes of it."""

    path: str
    bytes: int
    change: Difference


@dataclass(frozen=True)
class Outgoing:
    path: str
    """in the repository"""
    source: Path | bytes
    bytes: int
    sha256: str
    blob: str
    """git's id of the content"""

    @classmethod
    def read(cls, path: str, source: Path | bytes) -> Outgoing:
        """Raises `SecretInside` where the file holds one."""
        size, sha256, blob, secret = _read(source)
        if secret:
            raise SecretInside(
                f"{path} holds the value of a secret of this machine (a variable named ...TOKEN, ...KEY, ...PASSWORD or"
                " the like). Nothing is published: take it out of the file, and push again."
            )
        return cls(path, source, size, sha256, blob)

    def against(self, there: Any | None) -> Difference:
        """`there`: what the Hub says of the file of that path, a `RepoFile`; None: it has none."""
        if there is None:
            return "new"
        same = there.lfs.sha256 == self.sha256 if there.lfs else there.blob_id == self.blob
        return "same" if same else "changed"


def _read(source: Path | bytes) -> tuple[int, str, str, bool]:
    """Size, sha256, git's id, and whether a secret that is known now is inside; raises nothing of its own, since its
    variables hold what must not be seen."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
    sought = [one.encode() for one in secrets()]
    overlap, tail, found = max(map(len, sought), default=1) - 1, b"", False
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            blob.update(chunk)
            window = tail + chunk
            found = found or any(one in window for one in sought)
            tail = window[-overlap:] if overlap else b""
    return size, sha256.hexdigest(), blob.hexdigest(), found


def compare(files: Iterable[Outgoing], there: Mapping[str, Any], removed: Iterable[str] = ()) -> list[Change]:
    """What a push would do to the files of a repository: path -> `RepoFile`."""
    found = [Change(one.path, one.bytes, one.against(there.get(one.path))) for one in files]
    return found + [Change(path, there[path].size, "removed") for path in sorted(removed)]


def check_sums(found: Mapping[str, str], told: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Raise `Damaged` unless every file (path -> sha256) is listed in metadata.json, and is what it says there."""
    wrong = [f"{path} is not listed" for path in found if path not in told]
    wrong += [f"{path} is changed" for path in found if path in told and told[path]["sha256"] != found[path]]
    if wrong:
        raise Damaged(
            f"{where} is not what its metadata.json says: {'; '.join(sorted(wrong)[:8])}. Nothing of it is used: ask"
            " its owner to publish it again, or name an older revision."
        )
