"""Every notebook is clean, and runs from anywhere, without a network, whatever `google.colab` is on the path."""

from __future__ import annotations

import importlib.util
import json
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
# template.ipynb uses what Colab ships: these modules are absent there, and pip is neither imported nor run.
ABSENT = ("lightning", "lightning_fabric", "wandb", "optuna", "datasets", "pip")
WITHOUT_ABSENT = f"""
import re, sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        words = re.split(r"[^\\w.-]+", str(arguments[:2]))
        if any(re.fullmatch(r"pip[\\d.]*(.exe)?", word) for word in words):
            raise RuntimeError(f"the test blocks pip: {{arguments[:2]}}")
sys.addaudithook(refuse)
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


@pytest.mark.parametrize(
    ("path", "colab_stub"),
    [*((path, False) for path in NOTEBOOKS), (ROOT / "template.ipynb", True)],
    ids=lambda one: one.name if isinstance(one, Path) else ["", "with a google.colab namespace"][one],
)
def test_notebook_runs_from_anywhere_without_a_network(path, colab_stub, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    installs_nothing = path.name == "template.ipynb"
    (site / "sitecustomize.py").write_text(BLOCK_SOCKETS + (WITHOUT_ABSENT if installs_nothing else ""))
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
        "HF_HUB_OFFLINE": "1",
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
    assert any("image/png" in data or "data:image/png" in "".join(data.get("text/html", "")) for data in shown)
    assert all(cell.outputs for cell in cells[2:])  # after the form and the set-up, every cell shows something
    assert (tmp_path / "runs").is_dir()
    if path.name != "template.ipynb":
        assert set(proven(tmp_path / "runs").values()) == {"pass"}
    if installs_nothing:
        [page] = (tmp_path / "runs").rglob("validation_report.html")
        assert "<script" not in page.read_text(encoding="utf-8")
        report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        assert report["sound"], report["verdict"]  # the default model is


def proven(runs: Path) -> dict[str, str]:
    """What the one export under `runs` was found to be, by format."""
    [report] = runs.glob("*/export_report.json")
    checks = json.loads(report.read_text(encoding="utf-8"))["checks"]
    assert {"safetensors", "state_dict", "onnx", "pt2", "torchscript"} <= {check["name"] for check in checks}
    return {check["name"]: check["status"] for check in checks}


GIST_LIKE = """
import torch.nn as nn

class Tiny(nn.Module):
    def __init__(self, vocab_size=64, width=16, context_length=64):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab_size, width), nn.Linear(width, vocab_size)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids))
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "gpt_wikitext"},
        {"recipe": "bert_mlm"},
        {"recipe": "t5_seq2seq"},
        {"recipe": "classifier", "trackers": "wandb", "search_trials": "2"},
        {
            "source": "example:gpt",
            "overrides": "source.config.num_layers=1 source.config.width=32 source.config.num_heads=2",
        },
        {"source": "FOLDER/model.py"},
        {"source": "hf:FOLDER/gpt2", "tokenizer": "bpe", "overrides": "data.tokenizer.vocab_size=300"},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items())[:40],
)
def test_training_takes_every_recipe_and_models_from_anywhere(settings, tmp_path):
    """With W&B and a search, too; and a key in the environment is found in nothing that is written or shown."""
    from transformers import GPT2Config, GPT2LMHeadModel

    (tmp_path / "sitecustomize.py").write_text(BLOCK_SOCKETS)
    (tmp_path / "model.py").write_text(GIST_LIKE)
    (tmp_path / "config.json").write_text('{"vocab_size": 64, "width": 16, "context_length": 64}')
    if "gpt2" in settings.get("source", ""):
        shape = GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2)
        GPT2LMHeadModel(shape).save_pretrained(tmp_path / "gpt2")
    form = {f"NB_{name.upper()}": value.replace("FOLDER", str(tmp_path)) for name, value in settings.items()}
    secret = "0123456789abcdef" * 2 + "planted0"
    environment = {
        **os.environ, **form, "PYTHONPATH": str(tmp_path), "NB_SCALE": "smoke", "NB_STORAGE": str(tmp_path / "runs"),
        "WANDB_API_KEY": secret, "WANDB_MODE": "offline", "HF_TOKEN": f"hf_{secret}", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    copy = tmp_path / "training.ipynb"
    shutil.copy(ROOT / "training.ipynb", copy)
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", "-q", "-p", "no:cacheprovider", str(copy)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    [run] = (tmp_path / "runs").glob("*-2*")
    assert (run / "report.md").is_file()
    assert set(proven(tmp_path / "runs").values()) == {"pass"}
    cells = [cell for cell in nbformat.read(copy, as_version=4).cells if cell.cell_type == "code"]
    shown = {cell.source: str(cell.outputs) for cell in cells}
    assert "Dry run: " in next(out for source, out in shown.items() if "push(run" in source)
    assert "answer, after" in next(out for source, out in shown.items() if "one_request(" in source)
    assert list(run.glob("wandb/offline-run-*")) if "trackers" in settings else not (run / "wandb").exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert written == []
    assert secret not in done.stdout + done.stderr


def test_the_blocks_of_modules_and_of_pip_hold(tmp_path):
    """They bite in this process's children and theirs, and leave the rest importable."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_ABSENT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def said(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr.strip()

    for name in ABSENT:
        assert f"No module named '{name}'" in said(sys.executable, "-c", f"import {name}")
        find = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
        assert said(sys.executable, "-c", find) == "None\n"
    assert said(sys.executable, "-c", "import json, numpy; print('here')") == "here\n"
    for run in (
        "subprocess.run([sys.executable, '-m', 'pip', 'install', 'x'])",
        "subprocess.run(['pip3', '--version'])",
        "subprocess.run('/usr/bin/pip --version', shell=True)",
        "os.system('pip install x')",
    ):
        assert "the test blocks pip" in said(sys.executable, "-c", f"import os, subprocess, sys; {run}")
    assert "No module named pip" in said(sys.executable, "-m", "pip", "--version")
    harmless = "import subprocess; subprocess.run(['echo', 'a pipe in /tmp/pipeline'])"
    assert said(sys.executable, "-c", harmless) == "a pipe in /tmp/pipeline\n"
