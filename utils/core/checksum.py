"""`sha256_of` a file: what checkpoints, exports and pulled models are compared by."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 1 << 20  # bytes read at a time


def sha256_of(path: Path) -> str:
    """As 64 hexadecimal digits. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
