"""Which place a source names, our own examples, and what is refused instead of guessed."""

from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError

import pytest
import torch

from utils.core.config import ConfigError
from utils.models.source import EXAMPLES, KINDS, SourceError, find, load

MODEL = "from torch import nn\nclass M(nn.Module):\n    def __init__(self, width=2):\n        super().__init__()\n"
TINY = {"width": 12, "num_layers": 1, "num_heads": 2}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, where nothing of the network can be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_example_is_built_as_its_config_and_the_overrides_say(name):
    found = find(f"example:{name}")
    assert (found.name, found.where) == (f"example:{name}", "example")
    assert "class" in found.code
    assert found.sha256[found.main] == hashlib.sha256(found.code.encode()).hexdigest()
    loaded = load(found, overrides=TINY)
    assert loaded.model.config.width == loaded.config["width"] == 12
    kinds = {"gpt": "causal_lm", "bert": "masked_lm", "t5": "seq2seq", "vit": "image_classifier"}
    assert loaded.kind == kinds.get(name, name)
    assert not loaded.pretrained
    assert loaded.build().config == loaded.model.config


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_an_example_has_about_ten_million_parameters(name):
    with torch.device("meta"):
        model = load(find(f"example:{name}")).model
    assert 9e6 < sum(parameter.numel() for parameter in model.parameters()) < 15e6


def test_an_examples_seed_decides_its_weights():
    one, two, other = (load(find("example:gpt"), overrides=TINY, seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(one.embedding.weight, two.embedding.weight)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_a_python_file_is_found_by_any_path_and_again_by_its_name(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "net.v2.py").write_text(MODEL)
    (folder / "sub" / "config.json").write_text('{"width": 3}')
    for source in ("sub/net.v2.py", "./sub/net.v2.py", str(folder / "sub" / "net.v2.py"), "file:sub/net.v2.py"):
        found = find(source)
        assert (found.name, found.where) == (f"file:{folder}/sub/net.v2.py", "file")
        assert found.config == {"width": 3}
        assert find(found.name) == found
        assert type(load(found).model).__name__ == "M"


def test_a_folder_that_is_here_comes_before_a_hugging_face_id(folder):
    for name in ("gpt2", "owner/name"):
        (folder / name).mkdir(parents=True)
        with pytest.raises(SourceError, match="holds no model.py, custom_transformer.py or config.json.*write hf:NAME"):
            find(name)
        (folder / name / "custom_transformer.py").write_text(MODEL)
        assert find(name).where == "file"
        (folder / name / "model.py").write_text(MODEL)
        assert find(name).main == "model.py"


@pytest.mark.parametrize(
    "source", ["model.py", "sub/model.py", "./model", "/none/here", "~/none", "a/b/c", "file:gpt2"]
)
def test_a_path_that_is_not_here_is_said_to_be_none(folder, source):
    with pytest.raises(SourceError, match="There is no file or folder at /"):
        find(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "is no source of a model; expected example:gpt, gist:ID"),
        ("  ", "is no source of a model"),
        ("what is this", "is no source of a model"),
        ("https://example.com/model.py", "There is no file"),
        ("example:llama", "There is no example 'llama'; there are example:gpt, example:bert"),
        ("hf:", "is no source of a model"),
        ("notes.txt", "is not a Python file"),
        ("hf:./none", "it has no config.json"),
        ("binary.py", "is not UTF-8"),
    ],
)
def test_what_names_no_model_is_refused(folder, source, message):
    (folder / "notes.txt").write_text("x")
    (folder / "binary.py").write_bytes(b"\xff")
    with pytest.raises(SourceError, match=message):
        find(source)


def test_a_revision_of_what_has_none_is_refused(folder):
    (folder / "model.py").write_text(MODEL)
    for source in ("example:gpt", "model.py"):
        with pytest.raises(SourceError, match="has no revisions; leave it empty"):
            find(source, revision="main")


def test_bad_overrides_and_kinds_of_an_example_are_refused():
    with pytest.raises(SourceError, match="example:gpt: unknown setting 'widht'; did you mean 'width'"):
        load(find("example:gpt"), overrides={"widht": 3})
    with pytest.raises(SourceError, match="kind is 'gan'; expected one of causal_lm"):
        load(find("example:gpt"), kind="gan")
    with pytest.raises(SourceError, match="GPT says it is 'causal_lm'; leave kind empty"):
        load(find("example:gpt"), overrides=TINY, kind="seq2seq")
    assert load(find("example:gpt"), overrides=TINY, kind="causal_lm").kind in KINDS
    assert issubclass(SourceError, ConfigError)


def test_a_source_shows_its_provenance_escaped_and_cannot_be_changed(folder):
    (folder / "model.py").write_text(MODEL)
    (folder / "config.json").write_text('{"name": "<b>"}')
    found = find("model.py")
    page = found._repr_html_()
    assert found.sha256["model.py"] in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    with pytest.raises(FrozenInstanceError):
        found.name = "other"
