"""The form of template.ipynb becomes a ValidationConfig, or an error that says what to give."""

from __future__ import annotations

import pytest

from utils.core.config import ConfigError
from utils.core.notebook import form
from utils.models.gist import parse
from utils.validation.settings import ValidationConfig, settings_from_form

ID = "0123456789abcdef0123456789abcdef"
EMPTY = {
    "source": "", "gist_id": "", "revision": "", "trust_code": False, "kind": "", "config": "", "scale": "smoke",
    "device": "cpu", "seed": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("NB_GIST_ID", raising=False)


def filled(**values) -> ValidationConfig:
    return settings_from_form(form(**{**EMPTY, **values}))


def test_an_empty_form_takes_our_own_example():
    assert filled() == ValidationConfig(source="example:gpt", scale="smoke", device="cpu")


def test_every_field_of_the_form_arrives():
    chosen = filled(source="gpt2", revision="main", trust_code=True, kind="causal_lm", scale="full", seed=7)
    assert chosen == ValidationConfig(
        source="gpt2", revision="main", trust_code=True, kind="causal_lm", scale="full", device="cpu", seed=7
    )


@pytest.mark.parametrize(
    "text",
    [
        ID,
        f" {ID} ",
        f"gist:{ID}",
        f"octocat/{ID}",
        f"https://gist.github.com/octocat/{ID}",
        f"https://gist.github.com/{ID}",
        f"gist.github.com/octocat/{ID}",
        f"https://gist.github.com/octocat/{ID}.git",
        f"https://gist.github.com/octocat/{ID}#file-model-py",
    ],
)
def test_a_gist_is_known_by_its_id_in_every_form(text):
    assert parse(filled(gist_id=text).source) == (ID, "")


def test_a_gist_address_with_a_revision_keeps_it():
    revision = "a" * 40
    chosen = filled(gist_id=f"https://gist.github.com/octocat/{ID}/{revision}")
    assert parse(chosen.source) == (ID, revision)


def test_an_address_elsewhere_is_no_gist():
    gist, _ = parse(filled(gist_id="https://huggingface.co/octocat/gpt2").source)
    assert gist == "gpt2"  # which models/gist.py refuses, as it is no id


def test_a_gist_id_of_the_environment_stands_for_the_forms(monkeypatch):
    monkeypatch.setenv("NB_GIST_ID", ID)
    assert filled().source == f"gist:{ID}"
    assert filled(gist_id="f" * 32).source == f"gist:{'f' * 32}"


def test_a_gist_and_a_source_together_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=f"Both gist_id \\({ID}\\) and source \\(gpt2\\) are given; empty one"):
        filled(gist_id=ID, source="gpt2")
    monkeypatch.setenv("NB_GIST_ID", ID)
    with pytest.raises(ConfigError, match="empty one of them"):
        filled(source="gpt2")


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", {}),
        ("num_layers=2", {"num_layers": 2}),
        ("num_layers=2  width=128 dropout=1e-1", {"num_layers": 2, "width": 128, "dropout": 0.1}),
        ("positions=alibi bias=true name=null", {"positions": "alibi", "bias": True, "name": None}),
        ("rope.base=1e4 rope.scaled=false", {"rope": {"base": 10000.0, "scaled": False}}),
        ("name='a b'", {"name": "a b"}),
        ("sizes='[1, 2]'", {"sizes": [1, 2]}),
        ("num_layers=2 num_layers=3", {"num_layers": 3}),
    ],
)
def test_overrides_of_the_models_config_are_read_as_yaml(text, config):
    assert filled(config=text).config == config


@pytest.mark.parametrize("text", ["num_layers", "num_layers 2", "=2", "a=[1"])
def test_an_override_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="Override"):
        filled(config=text)


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("scale", "huge", "'smoke', 'standard' or 'full'"),
        ("kind", "decoder", "'causal_lm', 'masked_lm', 'seq2seq', 'classifier' or 'image_classifier'"),
        ("device", "tpu", "'auto', 'cpu', 'cuda' or 'mps'"),
    ],
)
def test_an_unknown_value_is_refused_and_the_valid_ones_are_named(field, value, valid):
    with pytest.raises(ConfigError) as refused:
        filled(**{field: value})
    message = str(refused.value)
    assert message.startswith(f"{field}: ")
    assert valid in message
    assert f"(got {value!r})" in message


def test_an_unknown_setting_is_refused_and_the_nearest_one_is_named():
    with pytest.raises(ConfigError, match="unknown setting 'sorce'; did you mean 'source'"):
        ValidationConfig.load(None, ["sorce=gpt2"])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("example:gpt", "validate-example-gpt"),
        (f"gist:{ID}", f"validate-gist-{ID}"),
        (f"https://gist.github.com/octocat/{ID}", f"validate-{ID}"),
        ("openai-community/gpt2", "validate-gpt2"),
        ("models/my model/", "validate-my-model"),
        ("models/model.py", "validate-model.py"),
    ],
)
def test_a_run_is_named_after_what_is_validated(source, name):
    assert ValidationConfig(source=source).run_name == name
