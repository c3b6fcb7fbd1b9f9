"""The fresh process: what it sees, and what becomes of one that ends early."""

from __future__ import annotations

import pytest

from utils.publish import fresh
from utils.publish.parity import TRAINING

LOAD = """
def load(folder):
    {body}
"""


@pytest.fixture
def ask(tmp_path):
    """Answers about folders whose code does as told, and about a state dict after them."""
    import torch

    torch.save({"weight": torch.zeros(2)}, tmp_path / "state_dict.pt")

    def ask(body: str, *, timeout: float = fresh.TIMEOUT, names=("weights", "state_dict")):
        code, out = tmp_path / "model_code", tmp_path / "out"
        code.mkdir(exist_ok=True)
        out.mkdir()
        (code / "__init__.py").touch()
        (code / "load.py").write_text(LOAD.format(body=body))
        common = {"without": list(TRAINING), "loader": "ours", "kind": "causal_lm", "graphs": {}}
        engines = {"weights": "safetensors", "state_dict": "state_dict"}
        proofs = [
            {**common, "name": name, "engine": engines[name], "files": [str(tmp_path / "state_dict.pt")]}
            for name in names
        ]
        job = {"folder": str(tmp_path), "calls": 1, "threads": 1, "runs": []}
        return fresh.answers(proofs, out, job, timeout=timeout)

    return ask


def test_a_process_that_dies_fails_what_it_was_at_and_another_does_the_rest(ask):
    found = ask("import os, sys; print('the last words', file=sys.stderr, flush=True); os._exit(3)")
    assert found["weights"]["error"] == "the process ended with code 3: the last words"
    assert list(found["state_dict"]["tensors"]) == ["weight"]


def test_a_process_that_hangs_is_ended_and_that_is_the_answer(ask):
    found = ask("import time; time.sleep(3600)", timeout=2, names=("weights",))
    assert found["weights"]["error"] == "the process took more than 2 seconds and was ended"


@pytest.mark.parametrize("name", ["utils", "lightning_fabric", "wandb"])
def test_code_that_needs_this_project_or_what_trains_does_not_find_it(ask, name):
    found = ask(f"import {name}.core", names=("weights",))
    assert "ModuleNotFoundError" in found["weights"]["error"]
    assert name in found["weights"]["error"]
    assert not {*TRAINING} & {*found["weights"]["modules"]}


def test_a_token_reaches_neither_the_process_nor_an_answer(ask, monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "hf_planted_secret")
    assert "hf_planted_secret" not in fresh.environment().values()
    found = ask("raise ValueError('hf_planted_secret')", names=("weights",))
    assert found["weights"]["error"] == "ValueError: ***"


def test_no_bytecode_is_left_beside_the_code(ask, tmp_path):
    ask("raise ValueError", names=("weights",))
    assert not list(tmp_path.rglob("__pycache__"))
