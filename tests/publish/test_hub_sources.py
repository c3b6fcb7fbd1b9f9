"""Ids of a Hub as sources of models and of rows, by the real clients in processes of their own.

The clients read HF_ENDPOINT and their kin when they are imported, so what loads runs where they are set from the start.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

_spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).parents[1] / "hub_server.py")
hub_server = sys.modules["hub_server"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hub_server)

TOKEN = "hf_sourcesSOURCESsources0123456789"
ROWS = b"text,label\n" + b"".join(b"row %d,%d\n" % (row, row % 2) for row in range(10))
CONFIGS = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/train.csv
  - split: validation
    path: small/dev.csv
- config_name: big
  data_files: big/*.csv
---
"""


@pytest.fixture
def hub():
    with hub_server.Hub({TOKEN: hub_server.User("ada", {"lab": "write"})}, page=3) as server:
        yield server


def answers(hub, code, tmp_path, token=TOKEN):
    """What a fresh process prints as JSON: `tell(name, call)` keeps what a call gives, or its error."""
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1",
        "HF_HOME": str(tmp_path / f"home{token}"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    environment.pop("HF_HUB_OFFLINE", None)
    head = (
        "import json\nfound = {}\n"
        "def tell(name, call):\n"
        "    try:\n        found[name] = call()\n"
        "    except Exception as error:\n        found[name] = f'{type(error).__name__}: {error}'\n"
    )
    whole = f"{head}{code}\nprint('ANSWERS' + json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", whole], env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.partition("ANSWERS")[2])


ROWS_CODE = """
from utils.data.rows import RowsConfig, load_rows
def rows(**settings):
    return lambda: {split: len(table) for split, table in load_rows(RowsConfig(**settings)).items()}
tell("config", rows(source="hf:ada/rows", hf_config="small"))
tell("other config", rows(source="hf:ada/rows", hf_config="big"))
tell("slice", rows(source="hf:ada/rows", hf_config="small", train_split="train[:50%]"))
tell("stream", rows(source="hf:ada/rows", hf_config="small", streaming=True, limit=4))
tell("old", rows(source="hf:ada/rows", hf_config="big", revision="v1"))
tell("no revision", rows(source="hf:ada/rows", hf_config="small", revision="nope"))
tell("private", rows(source="hf:ada/hidden"))
tell("missing", rows(source="hf:ada/nothing"))
"""


def test_rows_of_a_dataset_come_by_config_split_revision_and_stream(hub, tmp_path):
    files = {"README.md": CONFIGS, "small/train.csv": ROWS, "small/dev.csv": ROWS[:30], "big/all.csv": ROWS}
    repo = hub.add("ada/rows", files, "dataset")
    repo.tags["v1"] = repo.branches["main"]
    more = {**repo.commits[repo.tags["v1"]].files, "big/all.csv": hub_server.File(ROWS + b"more,1\n", False)}
    repo.branches["main"] = repo.keep(hub_server.Commit("more", more, repo.tags["v1"]))
    hub.add("ada/hidden", {"train.csv": ROWS, "test.csv": ROWS[:30]}, "dataset", private=True)
    found = answers(hub, ROWS_CODE, tmp_path)
    # ROWS has 10 rows; its first 30 bytes are the header and "row 0,0", "row 1,1", and the start of a third
    assert found["config"] == {"train": 10, "validation": 3}
    assert found["other config"] == {"train": 11}
    assert found["slice"] == {"train": 5}
    assert found["stream"] == {"train": 4, "validation": 3}
    assert found["old"] == {"train": 10}
    assert found["private"] == {"train": 10, "test": 3}
    assert "'nope' doesn't exist" in found["no revision"]
    assert found["missing"].startswith("CorpusError: Hugging Face dataset 'ada/nothing' could not be read")
    others = answers(hub, ROWS_CODE.replace("ada/rows", "ada/none"), tmp_path, token="")
    assert others["private"].startswith("CorpusError")


PUSH_CODE = """
from datasets import Dataset, DatasetDict, load_dataset
rows = DatasetDict({"train": Dataset.from_dict({"text": ["a", "b", "c"]}), "test": Dataset.from_dict({"text": ["d"]})})
tell("pushed", lambda: rows.push_to_hub("lab/letters", private=True).oid)
tell("read", lambda: load_dataset("lab/letters", split="train")["text"][:])
"""


def test_the_datasets_library_pushes_and_reads_what_it_pushed(hub, tmp_path):
    found = answers(hub, PUSH_CODE, tmp_path)
    repo = hub.repo("lab/letters", "dataset")
    assert found["pushed"] == repo.branches["main"]
    assert found["read"] == ["a", "b", "c"]
    assert repo.private


MODEL_CODE = """
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel
from utils.data.tokenizers import HFTokenizer
from utils.models.source import find, load
torch.manual_seed(0)
model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=1, n_head=2)).eval()
ids = torch.arange(8)[None]
logits = model(ids).logits
def same(other):
    return bool(torch.equal(other.eval()(ids).logits, logits))
tell("pushed", lambda: model.push_to_hub("ada/tiny", private=True).oid)
tell("read", lambda: same(AutoModelForCausalLM.from_pretrained("ada/tiny")))
tell("source", lambda: same(load(find("hf:ada/tiny")).model))
tell("pinned", lambda: same(load(find("ada/tiny", revision=found["pushed"])).model))
tell("facts", lambda: find("hf:ada/tiny").facts["revision"])
tell("no revision", lambda: same(load(find("hf:ada/tiny", revision="nope")).model))
tell("missing", lambda: same(load(find("hf:ada/nothing")).model))
tell("gated", lambda: same(load(find("hf:bob/gated")).model))
tell("tokenizer", lambda: HFTokenizer.load("ada/nothing").vocab_size)
"""


def test_a_model_that_transformers_pushed_is_a_source_of_models(hub, tmp_path):
    pytest.importorskip("transformers")
    hub.add("bob/gated", {"config.json": b"{}"}).gated = "manual"
    found = answers(hub, MODEL_CODE, tmp_path)
    repo = hub.repo("ada/tiny")
    assert found["pushed"] == found["facts"] == repo.branches["main"]
    assert repo.private
    assert (found["read"], found["source"], found["pinned"]) == (True, True, True)
    assert "has no such revision" in found["no revision"]
    assert found["missing"].startswith("SourceError: hf:ada/nothing was not found on the Hugging Face Hub")
    assert "asks for an agreement" in found["gated"]
    assert found["tokenizer"].startswith("TokenizerError")
