"""Fixtures of several packages' tests."""

import shutil

import pytest

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "google-chrome")) if path), None)


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small are slower on several threads, and for seconds on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (test extra)")
    if CHROMIUM is None:
        pytest.skip("no chromium; apt-get install chromium")
    with playwright.sync_playwright() as session:
        opened = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()
