"""Every task, from recipe to answers; resumed exactly; with models of ours, of transformers', and of a file's code."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from utils.core.checkpoints import Checkpoints
from utils.core.config import ConfigError
from utils.training.answers import answer_texts, answers, final_metrics
from utils.training.objectives import OBJECTIVES
from utils.training.recipe import Recipe, load_recipe
from utils.training.recipes import build_model, open_trained, prepare_data, train
from utils.training.runs import newest_checkpoint

SHORT = {
    "max_steps": 7, "batch_size": 4, "warmup_steps": 2, "eval_every": 4, "eval_batches": 2, "sample_every": 0,
    "checkpoint_every": 2, "log_every": 1, "device": "cpu", "precision": "fp32", "trackers": (),
}  # fmt: skip
COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """240 rows: a sentence, its second word, and which colour it names."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {"text": f"the {COLOURS[at % 4]} bird number {at} sings", "target": COLOURS[at % 4], "label": COLOURS[at % 4]}
        for at in range(240)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder as transformers leaves it, beside which nothing is needed."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=300, **shape)).save_pretrained(folder)
    return folder


WORDS = {"kind": "wordpiece", "vocab_size": 300}
NAMES = ["masked_lm", "seq2seq", "classifier", "causal_lm", "transformers"]


@pytest.fixture
def recipe(request, table, gpt2):
    name = request.param
    if name == "transformers":
        rows = {"source": str(table), "tokenizer": {"kind": "bpe", "vocab_size": 300}, "block_size": 16}
        return load_recipe("gpt_wikitext_smoke").replace(rows=rows, source={"name": f"hf:{gpt2}"}, train=SHORT)
    file = {"masked_lm": "bert_mlm", "seq2seq": "t5_seq2seq", "classifier": "classifier", "causal_lm": "gpt_wikitext"}
    kinds = {"seq2seq": {"kind": "t5", "vocab_size": 380}, "causal_lm": {"kind": "bpe", "vocab_size": 300}}
    rows = {"source": str(table), "tokenizer": kinds.get(name, WORDS), "block_size": 16, "max_length": 16}
    return load_recipe(f"{file[name]}_smoke").replace(rows=rows, train=SHORT)


def losses(run):
    return [line["train/loss"] for line in run.metrics().dropna(subset="train/loss").to_dict("records")]


@pytest.mark.parametrize("recipe", NAMES, indirect=True)
def test_a_run_cut_off_and_taken_up_equals_one_that_never_stopped(recipe, tmp_path, monkeypatch):
    whole = train(recipe, tmp_path / "whole")
    objective = OBJECTIVES[recipe.task]

    def dies(model, batch, step, **options):
        if model.training and step == 5:
            raise KeyboardInterrupt
        return objective(model, batch, step, **options)

    monkeypatch.setitem(OBJECTIVES, recipe.task, dies)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "broken")
    monkeypatch.undo()
    broken = train(recipe, tmp_path / "broken")
    one, other = (newest_checkpoint(result.run).load() for result in (whole, broken))
    assert one["progress"]["step"] == other["progress"]["step"] == 7
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert losses(whole.run) == losses(broken.run)
    assert len(broken.run.stamp["sessions"]) == 2


@pytest.mark.parametrize("recipe", ["masked_lm", "seq2seq", "classifier"], indirect=True)
def test_a_trained_run_is_opened_judged_and_answers(recipe, tmp_path):
    steps = {"classifier": 300}.get(recipe.task, 400)
    longer = recipe.replace(
        train={
            "max_steps": steps,
            "lr": 3e-3 if recipe.task == "classifier" else 1e-2,
            "batch_size": 16,
            "eval_every": steps,
            "checkpoint_every": None,
        }
    )
    run = train(longer, tmp_path).run
    trained = open_trained(run.path)
    data = trained.data()
    final = final_metrics(trained.model, data, longer.train, task=recipe.task)
    assert set(final) == {"validation", "test"}
    extra = {"classifier": "macro_f1", "seq2seq": "chrf", "masked_lm": "perplexity"}[recipe.task]
    assert extra in final.index
    best = Checkpoints(run.path / "checkpoints").best()
    assert all(torch.equal(value, best.load()["model"][name]) for name, value in trained.model.state_dict().items())
    table = answers(trained.model, data, 5).table
    assert len(table) == 5
    if recipe.task == "masked_lm":
        assert math.isclose(final["test"]["perplexity"], math.exp(final["test"]["loss"]))
        said = answer_texts(trained.model, data, ["the [MASK] bird number 3 sings"])
        with pytest.raises(ConfigError, match=r"fills in \[MASK\]; put it into each text"):
            answer_texts(trained.model, data, ["the bird"])
    else:  # the colour is in the text: a few hundred rows teach it
        assert final["test"]["accuracy"] > 0.9
        said = answer_texts(trained.model, data, ["the blue bird number 999 sings"])
        assert said.table["model says"][0].startswith("blue")
    assert list(said.table) == ["text", "model says"]


def test_an_own_file_of_code_is_trained_with_sizes_that_the_data_decide(table, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, vocab_size=50, width=8, context_length=64):\n"
        "        super().__init__()\n"
        "        self.embedding, self.head = nn.Embedding(vocab_size, width), nn.Linear(width, vocab_size)\n"
        "    def forward(self, x):\n"
        "        return self.head(self.embedding(x))\n"
    )
    (tmp_path / "config.json").write_text('{"vocab_size": 50, "width": 8, "context_length": 64}')
    recipe = load_recipe("minimal_test").replace(source={"name": str(tmp_path / "net.py")}, train=SHORT)
    data = prepare_data(recipe, tmp_path / "data")
    model = build_model(recipe, data)
    assert model.model.embedding.num_embeddings == data.tokenizer.vocab_size != 50
    assert train(recipe, tmp_path / "runs").progress.step == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "example:bert"}, "is a masked_lm|is of kind masked_lm|masked_lm"),
        (
            {"name": "example:gpt", "config": {"vocab_size": 20}},
            r"the model's embedding 20 rows.*source\.resize_embeddings=true",
        ),
        (
            {"name": "example:gpt", "config": {"context_length": 8}},
            r"Rows have up to 32 tokens.*lower data\.block_size, or for rows rows\.block_size and rows\.max_length",
        ),
    ],
)
def test_a_model_of_another_kind_or_too_small_is_refused_before_anything_runs(source, message, tmp_path):
    tiny = {"num_layers": 1, "num_heads": 1, "width": 8}
    source = {**source, "config": {**tiny, **source.get("config", {})}}
    recipe = load_recipe("minimal_test").replace(source=source)
    with pytest.raises(ConfigError, match=message):
        train(recipe, tmp_path)
    assert not [*tmp_path.glob("minimal*")]


def test_embeddings_grow_only_where_asked(gpt2, table, tmp_path):
    rows = {"source": str(table), "tokenizer": {"kind": "bpe", "vocab_size": 330}, "block_size": 16}
    recipe = load_recipe("gpt_wikitext_smoke").replace(rows=rows, source={"name": f"hf:{gpt2}"})
    data = prepare_data(recipe, tmp_path)
    assert data.tokenizer.vocab_size > 300
    with pytest.raises(ConfigError, match=r"resize_embeddings"):
        build_model(recipe, data)
    model = build_model(recipe.replace(source={"resize_embeddings": True}), data)
    assert model.model.get_input_embeddings().num_embeddings == data.tokenizer.vocab_size


def test_a_pretrained_masked_model_keeps_its_weights(tmp_path, table):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertForMaskedLM(BertConfig(vocab_size=300, max_position_embeddings=32, **shape))
    bert.save_pretrained(tmp_path / "bert")
    rows = {"source": str(table), "tokenizer": WORDS, "block_size": 16}
    named = {**load_recipe("bert_mlm_smoke").model_dump(), "source": {"name": f"hf:{tmp_path}/bert"}}
    recipe = Recipe.load(None, (), **named).replace(rows=rows)
    model = build_model(recipe, prepare_data(recipe, tmp_path / "data"))
    weights = dict(bert.named_parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.model.named_parameters())
