"""Metrics of a task at each evaluation: logged, equal to those of the final report, and no trace in the training."""

from __future__ import annotations

import json

import pytest
import torch

from utils.core.checkpoints import Checkpoints
from utils.training import task_metrics
from utils.training.answers import final_metrics
from utils.training.recipe import load_recipe
from utils.training.recipes import open_trained, train

SHORT = {
    "max_steps": 6, "batch_size": 4, "warmup_steps": 2, "eval_every": 3, "sample_every": 0, "log_every": 1,
    "device": "cpu", "precision": "fp32", "trackers": (),
}  # fmt: skip
COLOURS = ("red", "green", "blue", "white")
WORDS = {"classifier": ("classifier_smoke", {"kind": "wordpiece", "vocab_size": 300}),
         "seq2seq": ("t5_seq2seq_smoke", {"kind": "t5", "vocab_size": 380})}  # fmt: skip


@pytest.fixture
def recipe(request, tmp_path):
    """Of a task, on 80 rows: a sentence, and the colour in it."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"the {COLOURS[at % 4]} bird number {at}", "target": COLOURS[at % 4], "label": COLOURS[at % 4]}
        for at in range(80)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, tokenizer = WORDS[request.param]
    rows = {"source": str(path), "tokenizer": tokenizer, "max_length": 16}
    return load_recipe(name).replace(rows=rows, train=SHORT)


@pytest.mark.parametrize(
    ("recipe", "names"),
    [("classifier", {"macro_f1"}), ("seq2seq", {"bleu", "chrf", "exact_match", "perplexity"})],
    indirect=["recipe"],
)
def test_they_are_logged_at_every_evaluation_and_equal_the_final_ones_of_the_same_weights(recipe, names, tmp_path):
    told = []
    run = train(recipe, tmp_path, on_evaluation=lambda step, metrics: told.append((step, metrics))).run
    assert [step for step, _ in told] == [3, 6]
    assert all(names < set(metrics) for _, metrics in told)
    trained = open_trained(run.path)
    final = final_metrics(trained.model, trained.data(), recipe.train, task=recipe.task)["validation"]
    logged = run.metrics().loc[trained.step]  # every row is judged: validation has fewer than `ROWS`
    for name in names:
        assert logged[f"validation/{name}"] == pytest.approx(final[name])


@pytest.mark.parametrize("recipe", ["seq2seq"], indirect=True)
def test_texts_are_made_of_a_bounded_number_of_rows(recipe, tmp_path, monkeypatch):
    from utils.training import generation

    made = []
    original = generation.generation_metrics
    monkeypatch.setattr(
        generation, "generation_metrics", lambda texts, right: made.append(len(texts)) or original(texts, right)
    )
    monkeypatch.setattr(task_metrics, "ROWS", 2)
    train(recipe.replace(train={"eval_batch_size": 1}), tmp_path)
    assert made == [2, 2]  # of the validation split's three


@pytest.mark.parametrize("recipe", ["classifier", "seq2seq"], indirect=True)
def test_they_change_no_weight(recipe, tmp_path, monkeypatch):
    ends = []
    for judged in (True, False):
        if not judged:
            monkeypatch.setattr("utils.training.evaluations.task_metrics", lambda *args, **kwargs: {})
        run = train(recipe, tmp_path / str(judged)).run
        ends.append(Checkpoints(run.path / "checkpoints").last().load()["model"])
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("recipe", ["classifier"], indirect=True)
def test_an_evaluation_without_memory_for_them_leaves_them_out_and_says_so(recipe, tmp_path, monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("utils.training.classes.predict_classes", refuse)
    run = train(recipe, tmp_path).run
    assert "validation/macro_f1" not in run.metrics()
    assert run.metrics()["validation/loss"].notna().sum() == 2
    assert "Out of memory with the classifier's own metrics" in caplog.text
