"""Weights come back as they were, tied ones tied."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.publish.weights import write_safetensors, write_state_dict

SHAPE = {"vocab_size": 11, "context_length": 8, "num_layers": 1, "num_heads": 2, "width": 8}


def header(path):
    """The JSON that a safetensors file begins with, after its length in 8 bytes (the format's specification)."""
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


@pytest.mark.parametrize("tied", [True, False])
def test_safetensors_hold_a_tied_matrix_once_and_load_tied(exportables, tmp_path, tied):
    from safetensors.torch import load_model

    torch.manual_seed(0)
    model = GPT(TransformerConfig(**SHAPE, tie_embeddings=tied))
    (path,) = write_safetensors(replace(exportables["gpt"], model=model), tmp_path)
    names = header(path)
    assert names.pop("__metadata__")["format"] == "pt"
    assert ("embedding.weight" in names) + ("head.weight" in names) == 2 - tied
    again = GPT(TransformerConfig(**SHAPE, tie_embeddings=tied))
    load_model(again, str(path))
    assert (again.head.weight is again.embedding.weight) == tied
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_weights_in_another_order_of_memory_come_back_equal(exportables, tmp_path):
    from safetensors.torch import load_model

    model = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    expected = model[0].weight.detach().clone()
    (path,) = write_safetensors(replace(exportables["gpt"], model=model), tmp_path)
    again = nn.Sequential(nn.Conv2d(3, 4, 3))
    load_model(again, str(path))
    assert torch.equal(again[0].weight, expected)
    assert torch.equal(model[0].weight, expected)


def test_a_state_dict_is_read_without_unpickling_objects(exportables, tmp_path):
    torch.manual_seed(0)
    model = BERT(TransformerConfig(**SHAPE))
    (path,) = write_state_dict(replace(exportables["bert"], model=model), tmp_path)
    state = torch.load(path, weights_only=True)
    assert list(state) == list(model.state_dict())
    again = BERT(TransformerConfig(**SHAPE))
    again.load_state_dict(state)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_model_of_transformers_writes_its_config_beside(exportables, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    files = {path.name for path in write_safetensors(exportables["gpt2"], tmp_path)}
    assert files == {"config.json", "generation_config.json", "model.safetensors"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("gpt2", "float32")


def test_equal_models_make_equal_files_however_many_matrices_are_tied(exportables, tmp_path):
    """safetensors writes what a file says of itself in the order of a hash that is drawn anew each time."""
    torch.manual_seed(0)
    model = nn.Module()
    for at in range(6):
        model.add_module(f"a{at}", nn.Linear(2, 2))
        model.add_module(f"b{at}", getattr(model, f"a{at}"))
    one, found = replace(exportables["gpt"], model=model), set()
    for at in range(4):
        (tmp_path / str(at)).mkdir()
        (path,) = write_safetensors(one, tmp_path / str(at))
        found.add(path.read_bytes())
    assert len(found) == 1
    names = list(header(path)["__metadata__"])
    assert names == sorted(names)
    assert len(names) == 13
    from safetensors.torch import load_file

    assert torch.equal(load_file(path)["a3.weight"], model.a3.weight)
