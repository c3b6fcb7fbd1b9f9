"""Every notebook is clean, and runs from anywhere, without a network, whatever `google.colab` is on the path."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("*.ipynb"))
BLOCK_SOCKETS = """
import socket
real = socket.socket.connect
def connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"the test blocks the network: {address}")
    return real(self, address)
socket.socket.connect = connect
"""

spec = importlib.util.spec_from_file_location("lint_notebooks", Path(__file__).with_name("lint_notebooks.py"))
lint_notebooks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint_notebooks)


def notebook_of(*sources: str, tags: tuple[str, ...] = ("parameters",)) -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata["tags"] = list(tags)
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_clean(path):
    assert lint_notebooks.faults(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        (["a = 1", "def f(): pass"], "FunctionDef"),
        (["a = 1", "try:\n    a\nfinally:\n    pass"], "Try"),
        (["a = 1", "print(b)\nb = 2"], "b is used before it is bound"),
        (["a = 1", "x = x + 1"], "x is used before it is bound"),
        (["a = 1", "a = ("], "does not parse"),
    ],
)
def test_lint_names_the_fault(cells, fault):
    assert any(fault in line for line in lint_notebooks.faults(notebook_of(*cells)))


def test_lint_accepts_magics_loops_and_comprehensions():
    cells = [
        "a = 1",
        "!ls {a}",
        "for i in range(a):\n    print(i)",
        "[j for j in range(a)]\nfrom os import path as p\np",
    ]
    assert lint_notebooks.faults(notebook_of(*cells)) == []


def test_lint_finds_outputs_and_a_missing_form():
    untagged = notebook_of("a = 1", tags=())
    untagged.cells[0].execution_count = 3
    assert len(lint_notebooks.faults(untagged)) == 2


@pytest.mark.parametrize("colab_stub", [False, True], ids=["plain", "with a google.colab namespace"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_anywhere_without_a_network(path, colab_stub, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCK_SOCKETS)
    if colab_stub:
        (site / "google" / "colab").mkdir(parents=True)
    copy = tmp_path / "elsewhere" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "NB_SCALE": "smoke",
        "NB_STORAGE": str(tmp_path / "runs"),
    }
    blocked = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "the test blocks the network" in blocked.stderr
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p", "no:cacheprovider", str(copy)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    cells = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"]
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert any("image/png" in data for data in shown)
    assert all(cell.outputs for cell in cells[2:])  # after the form and the set-up, every cell shows something
    assert (tmp_path / "runs").is_dir()
