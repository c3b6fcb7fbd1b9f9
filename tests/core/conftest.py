"""What several tests of core need: a disk that refuses to let files grow."""

import contextlib
import resource

import pytest


@pytest.fixture
def file_size_limit():
    """`with file_size_limit(bytes):` no file of this process can grow beyond that; a write is cut short there."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores SIGXFSZ: the write fails instead
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
