"""What a folder's metadata.json and tokenizer.json may name: classes of our models and tokenizers, and nothing else."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import save_model

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.publish import loading


@pytest.mark.parametrize(
    "name",
    [
        "utils.publish.fresh:subprocess",  # a module that ours imports
        "utils.publish.fresh:answers",
        "utils.models.found:SourceError",  # a class without the methods
        "utils.models.transformer:torch",
        "utils.models.bert:Blocks",  # imported, if at all
        "utils.cli:main",
        "utils.models.transformer:GPT.forward",
        "os:system",
        "utils.models..transformer:GPT",
        "",
    ],
)
def test_a_folder_names_only_classes_of_our_models_and_tokenizers(name, tmp_path):
    shape = {"vocab_size": 11, "context_length": 8, "num_layers": 1, "num_heads": 2, "width": 8}
    model = GPT(TransformerConfig(**shape))
    save_model(model, str(tmp_path / "model.safetensors"))
    about = {"loader": "ours", "builds": "utils.models.transformer:GPT", "config": model.config.model_dump(mode="json")}
    (tmp_path / "metadata.json").write_text(json.dumps(about))
    assert loading.load(tmp_path)[0].state_dict().keys() == model.state_dict().keys()
    (tmp_path / "metadata.json").write_text(json.dumps({**about, "builds": name}))
    with pytest.raises(ValueError, match="expected a class of our models or tokenizers, with forward"):
        loading.load(tmp_path)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(json.dumps({"class": name, "arguments": {}}))
    with pytest.raises(ValueError, match="expected a class of our models or tokenizers, with encode, decode"):
        loading.tokenizer_in(tmp_path / "tokenizer")
