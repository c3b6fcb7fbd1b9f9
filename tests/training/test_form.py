"""A notebook's form: every field changes something, or says that it does not; and what would do nothing is refused."""

from __future__ import annotations

import json
import logging

import pytest

from utils.core.config import ConfigError
from utils.core.notebook import Settings
from utils.experiments.search_space import check_space, parse_space
from utils.training.form import SIZES, recipe_from_form
from utils.training.recipe import Recipe, load_recipe
from utils.training.recipes import build_model, prepare_data, train
from utils.training.studies import load_search

EMPTY = {
    "scale": "smoke", "recipe": "", "corpus": "", "source": "", "trust_code": False, "tokenizer": "", "model_size": "",
    "max_steps": 0, "learning_rate": 0.0, "precision": "", "batch_size": 0, "micro_batch_size": 0, "schedule": "",
    "warmup_steps": 0, "max_grad_norm": 0.0, "patience": 0, "label_smoothing": 0.0, "ema_decay": 0.0,
    "compile_model": False, "gradient_checkpointing": False, "max_hours": 0.0, "trackers": "", "seed": 1337,
    "overrides": "",
}  # fmt: skip
SHORT = "train.max_steps=3 train.eval_every=3 train.batch_size=4 train.trackers=[] train.device=cpu"


def form(**fields):
    return Settings({**EMPTY, **fields})


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "birds.jsonl"
    path.write_text("".join(json.dumps({"text": f"bird number {at} sings of {at * at}"}) + "\n" for at in range(200)))
    return path


# Training


@pytest.mark.parametrize(
    ("field", "value", "setting"),
    [
        ("learning_rate", 1e-2, "lr"),
        ("precision", "fp32", "precision"),
        ("batch_size", 4, "batch_size"),
        ("micro_batch_size", 2, "micro_batch_size"),
        ("schedule", "wsd", "schedule"),
        ("warmup_steps", 7, "warmup_steps"),
        ("max_grad_norm", 0.5, "max_grad_norm"),
        ("patience", 2, "patience"),
        ("label_smoothing", 0.1, "label_smoothing"),
        ("ema_decay", 0.9, "ema_decay"),
        ("compile_model", True, "compile"),
        ("gradient_checkpointing", True, "gradient_checkpointing"),
        ("max_hours", 0.5, "max_hours"),
    ],
)
def test_a_field_of_training_is_the_setting_of_the_recipe_and_an_empty_one_leaves_it(field, value, setting):
    left = recipe_from_form(form()).train
    assert getattr(left, setting) == getattr(load_recipe("minimal_test").train, setting) != value
    assert getattr(recipe_from_form(form(**{field: value})).train, setting) == value
    overridden = recipe_from_form(
        form(**{field: value}, overrides=f"train.{setting}={json.dumps(getattr(left, setting))}")
    )
    assert getattr(overridden.train, setting) == getattr(left, setting)


# Model size


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "model"),
        ({"recipe": "gpt_wikitext"}, "model"),
        ({"recipe": "bert_mlm"}, "source"),
        ({"source": "example:gpt"}, "source"),
        ({"overrides": "source.name=example:gpt"}, "source"),
        ({"recipe": "gpt_wikitext", "source": "example:gpt"}, "source"),
    ],
)
def test_a_model_size_is_that_of_the_model_that_learns(fields, where):
    recipe = recipe_from_form(form(model_size="small", **fields))
    found = recipe.source.config if where == "source" else recipe.model.model_dump()
    assert {name: found[name] for name in SIZES["small"]} == SIZES["small"]
    assert bool(recipe.source.name) == (where == "source")


def test_a_model_size_decides_the_parameters_of_a_source(tmp_path):
    recipe = recipe_from_form(form(source="example:gpt", model_size="tiny"))
    model = build_model(recipe, prepare_data(recipe, tmp_path))
    blocks = 4 * (12 * 128**2)  # 4 layers: 4 C^2 in attention, 8 C^2 in the feed-forward, without biases
    assert blocks < model.num_parameters() < 1.1 * blocks


# Sources


def test_a_source_puts_aside_the_model_that_the_recipe_has_and_says_so(caplog):
    with caplog.at_level(logging.INFO, "utils"):
        recipe = load_recipe("char_lm_cpu", ["source.name=example:gpt"])
    assert recipe.model == Recipe().model
    assert "source.name=example:gpt takes the place of the recipe's model, and its model is put aside" in caplog.text
    other = load_recipe("bert_mlm", ["source.name=hf:bert-base-uncased", "source.config.num_hidden_layers=3"])
    assert other.source.config == {"num_hidden_layers": 3}  # not those of example:bert
    assert load_recipe("bert_mlm").replace(source={"name": "hf:x/y"}).source.config == {}
    assert load_recipe("bert_mlm").replace(["source.name=example:bert"]) == load_recipe("bert_mlm")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "bert_mlm",
            ["model.dropout=0.3"],
            r"model\.dropout: our GPT is not what learns, source\.name=example:bert is",
        ),
        ("char_lm_cpu", ["source.name=example:gpt", "model.width=64"], r"model\.width: our GPT is not what learns"),
        ("char_lm_cpu", ["source.config.width=64"], r"source\.config\.width: no source\.name says which model"),
        ("char_lm_cpu", ["source.resize_embeddings=true"], r"source\.resize_embeddings: no source\.name"),
    ],
)
def test_settings_of_a_model_that_does_not_learn_are_refused(recipe, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe, overrides)


@pytest.mark.parametrize("recipe", ["bert_mlm", "t5_seq2seq", "classifier"])
def test_a_search_over_the_shape_of_a_model_that_does_not_learn_is_refused(recipe):
    own, sourced = (parse_space(load_search(f"search_transformer{end}").space) for end in ("", "_source"))
    check_space(sourced, load_recipe(recipe))
    check_space(own, load_recipe("char_lm_cpu"))
    with pytest.raises(ConfigError, match=r"model\.dropout: .*model\.num_layers: "):
        check_space(own, load_recipe(recipe))
    with pytest.raises(ConfigError, match=r"source\.config\.dropout: .*source\.config\.num_layers: "):
        check_space(sourced, load_recipe("char_lm_cpu"))


# Scale


def test_a_scale_that_changes_nothing_says_so(tmp_path, caplog):
    mine = load_recipe("minimal_test").save(tmp_path / "mine.yaml")
    with caplog.at_level(logging.WARNING, "utils"):
        assert recipe_from_form(form(recipe=str(mine), scale="standard")) == load_recipe("minimal_test")
        assert recipe_from_form(form(recipe="bert_mlm", scale="standard")) == load_recipe("bert_mlm")
        assert not caplog.records
        recipe_from_form(form(recipe=str(mine), scale="smoke"))
        assert "scale=smoke changes nothing" in caplog.text
        assert recipe_from_form(form(recipe="bert_mlm", scale="full")) == load_recipe("bert_mlm")
        assert "bert_mlm has no larger size for scale=full" in caplog.text


# Corpora that are rows


def test_a_table_given_to_a_recipe_of_text_is_read_as_rows_and_trained_on(rows, tmp_path):
    recipe = recipe_from_form(form(corpus=str(rows), overrides=SHORT))
    base = load_recipe("minimal_test")
    assert recipe.rows.source == str(rows)
    assert (recipe.rows.tokenizer, recipe.rows.block_size) == (base.data.tokenizer, base.data.block_size)
    assert recipe.data == Recipe().data
    data = prepare_data(recipe, tmp_path / "data")
    text = data.tokenizer.decode(data.train.tokens[:200].tolist())
    assert "bird number" in text
    assert "{" not in text
    assert train(recipe, tmp_path / "runs").progress.step == 3


@pytest.mark.parametrize("name", ["folder", "rows.csv"])
def test_folders_and_tables_are_rows_with_the_tokenizer_of_the_form(name, tmp_path):
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("text\na\n")
    recipe = recipe_from_form(form(corpus=str(path), tokenizer="bpe"))
    assert (recipe.rows.source, recipe.rows.tokenizer.kind) == (str(path), "bpe")


def test_texts_stay_texts(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("a text")
    for corpus in ("", "python-docs", "tiny-shakespeare", "hf:someone/text", str(path)):
        recipe = recipe_from_form(form(corpus=corpus))
        assert recipe.rows is None
        assert recipe.data.corpus == (corpus or "python-docs")
