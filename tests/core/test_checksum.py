"""A file's checksum is that of its bytes, however many reads they take."""

import hashlib

import pytest

from utils.core.checksum import CHUNK, sha256_of


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 3])
def test_the_checksum_is_of_all_bytes_in_order(size, tmp_path):
    content = bytes(at % 251 for at in range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()
