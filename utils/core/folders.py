"""A folder that is there whole or not at all. Leaves out single files, and checkpoints (`core.checkpoints`)."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the name `folder` once the block ends without an error.

    So a writer that fails leaves nothing, one that is killed leaves `.NAME-*` beside it, and of several at once the
    first gives the folder and the work of the others is dropped. Raises OSError where the disk refuses it.
    """
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another writer made the same folder first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
