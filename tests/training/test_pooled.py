"""Folds and shares of a study have one tokenizer, learned from what may be trained on and from nothing else."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from utils.core.config import parse_overrides
from utils.data.bpe import BPETokenizer
from utils.data.loaders import DataConfig, prepare, split_text
from utils.data.task import TaskDataConfig, prepare_task
from utils.training.parts import folds, shares

WORDS = ["sun", "moon", "star", "cloud", "rain", "wind", "snow", "hail", "storm", "mist"]
BPE = {"kind": "bpe", "vocab_size": 300}


@pytest.fixture
def text(tmp_path):
    """Words; those of the validation part (the 9th tenth) are in capitals, and so in no pair of the rest."""
    draw = random.Random(0)
    whole = " ".join(draw.choices(WORDS, k=2000))
    cuts = [round(len(whole) * share) for share in (0.8, 0.9)]
    whole = whole[: cuts[0]] + whole[cuts[0] : cuts[1]].upper() + whole[cuts[1] :]
    path = tmp_path / "text.txt"
    path.write_text(whole)
    return DataConfig(corpus=str(path), splits=(0.8, 0.1, 0.1), block_size=8, tokenizer=BPE), whole


def test_shares_of_a_text_are_judged_over_the_same_tokens_learned_from_the_training_part(text, tmp_path):
    data, whole = text
    found = [
        prepare(data.replace(**parse_overrides(one)["data"]), tmp_path / "data")
        for one in shares(data, [0.05, 1.0], tmp_path / "shares")
    ]
    assert np.array_equal(found[0].validation.tokens, found[1].validation.tokens)
    assert len(found[0].train.tokens) < len(found[1].train.tokens)
    split = split_text(whole, data.splits)
    learned = BPETokenizer.train(split["train"], 300)
    assert found[0].validation.tokens.tolist() == learned.encode(split["validation"]).tolist()
    assert found[0].validation.tokens.tolist() != BPETokenizer.train(whole, 300).encode(split["validation"]).tolist()


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_folds_of_a_text_have_one_tokenizer(text, tmp_path, kind):
    data = text[0].replace(tokenizer={"kind": kind})
    variations = folds(data, 3, tmp_path / "folds")
    found = [prepare(data.replace(**parse_overrides(one)["data"]), tmp_path / "data") for one in variations]
    probe = [one.tokenizer.encode("sun moon RAIN").tolist() for one in found]
    assert probe[0] == probe[1] == probe[2]
    assert len({one.tokenizer.vocab_size for one in found}) == 1
    assert len(list((tmp_path / "folds").glob("tokenizer-*"))) == 1
    assert folds(data, 3, tmp_path / "folds") == variations


@pytest.mark.parametrize(("kind", "task"), [("wordpiece", "classifier"), ("t5", "seq2seq"), ("char", "masked_rows")])
def test_folds_and_shares_of_rows_have_one_tokenizer(kind, task, tmp_path):
    draw = random.Random(1)
    lines = [
        {"text": " ".join(draw.choices(WORDS, k=6)), "label": at % 2, "target": f"{WORDS[at % 10]} {at}"}
        for at in range(80)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    task = "causal_lm" if task == "masked_rows" else task
    data = TaskDataConfig(source=str(path), tokenizer={"kind": kind, "vocab_size": 400}, block_size=8)
    for name, variations in (
        ("folds", folds(data, 3, tmp_path / "folds")),
        ("shares", shares(data, [0.1, 1.0], tmp_path / "shares")),
    ):
        changed = [data.replace(**parse_overrides(one)["rows"]) for one in variations]
        found = [prepare_task(one, task, tmp_path / "data").tokenizer for one in changed]
        probe = [one.encode("moon rain sun 3").tolist() for one in found]
        assert all(one == probe[0] for one in probe), name
        assert len({one.vocab_size for one in found}) == 1


def test_a_tokenizer_that_is_named_stays_as_it_is(text, tmp_path):
    prepared = prepare(text[0], tmp_path / "data")
    named = {"kind": "saved", "name": str(prepared.folder)}
    for one in shares(text[0].replace(tokenizer=named), [0.5], tmp_path / "shares"):
        assert not [setting for setting in one if setting.startswith("data.tokenizer")]
