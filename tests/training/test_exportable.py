"""What is exported of a run is the run's model: its best weights, called with tensors by place."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from utils.core.config import Config
from utils.core.run import Run
from utils.core.tracking import Tracking
from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.called import Called
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.training.exportable import described, exportable_of, origin_of, unfinished
from utils.training.recipe import load_recipe
from utils.training.recipes import finish, open_trained, train
from utils.training.text_parts import Rows, text_parts

SHAPE = {"vocab_size": 23, "context_length": 12, "num_layers": 1, "num_heads": 2, "width": 8}
SEQ2SEQ = {
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=23, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0
        )
    ),
    "bart": lambda: transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=23,
            d_model=8,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=8,
            decoder_ffn_dim=8,
            max_position_embeddings=16,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            forced_eos_token_id=2,
        )  # fmt: skip
    ),
}


class Foreign(torch.nn.Module):
    """Someone's model: pairs of tokens' embeddings, and no mask."""

    def __init__(self, pairs):
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(23, 8), torch.nn.Linear(8, 23)
        if pairs:
            self.forward = self.of_pairs

    def forward(self, input_ids):
        return self.head(self.embed(input_ids))

    def of_pairs(self, input_ids, decoder_input_ids):
        return self.head(self.embed(decoder_input_ids) + self.embed(input_ids).mean(1, keepdim=True))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@torch.no_grad()
def test_a_graph_of_ours_gives_the_model_s_logits_for_every_size_and_padding():
    model = GPT(TransformerConfig(**SHAPE)).eval()
    (part,) = text_parts(model, "causal_lm", Rows(23, 12))
    assert list(part.inputs) == ["input_ids", "attention_mask"]
    shapes = [tuple(one["input_ids"].shape) for one in (part.inputs, *part.others)]
    assert shapes == [(2, 6), (1, 12), (3, 7), (4, 5), (1, 1)]
    masks = [one["attention_mask"] for one in part.others]
    assert masks[1].tolist() == [[1] * 7, [1] * 6 + [0], [1] * 5 + [0, 0]]  # padded on the right,
    assert masks[2][3].tolist() == [0, 0, 0, 1, 1]  # and on the left
    for given in (part.inputs, *part.others):
        assert torch.equal(part.module(*given.values()), model(**given))
    assert part.axes["logits"] == {0: "batch", 1: "length"}


@torch.no_grad()
def test_our_encoder_and_decoder_together_are_the_model():
    model = T5(T5Config(**SHAPE)).eval()
    encoder, decoder = text_parts(model, "seq2seq", Rows(23, 12))
    assert list(decoder.inputs) == ["decoder_input_ids", "encoder_hidden", "attention_mask"]
    for source, given in zip((encoder.inputs, *encoder.others), (decoder.inputs, *decoder.others)):
        hidden = encoder.module(*source.values())
        assert torch.equal(hidden, given["encoder_hidden"])
        logits = decoder.module(given["decoder_input_ids"], hidden, source["attention_mask"])
        whole = model(source["input_ids"], given["decoder_input_ids"], source["attention_mask"])
        assert torch.equal(logits, whole)


@torch.no_grad()
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_and_a_decoder_of_transformers_together_are_the_model(name):
    inner = SEQ2SEQ[name]().eval()
    encoder, decoder = text_parts(Called(adapt(inner, kind="seq2seq")), "seq2seq", Rows(23, 12))
    for source, given in zip(encoder.others, decoder.others):
        hidden = encoder.module(*source.values())
        logits = decoder.module(given["decoder_input_ids"], hidden, source["attention_mask"])
        whole = inner(**source, decoder_input_ids=given["decoder_input_ids"]).logits
        torch.testing.assert_close(logits, whole)
    assert described(Called(adapt(inner, kind="seq2seq")))["loader"] == "transformers"


@torch.no_grad()
@pytest.mark.parametrize("pairs", [False, True])
def test_a_model_that_is_not_ours_to_take_apart_is_one_graph_of_the_inputs_that_it_takes(pairs):
    kind = "seq2seq" if pairs else "causal_lm"
    called = Called(adapt(Foreign(pairs).eval(), kind=kind, config={"context_length": 12}))
    (part,) = text_parts(called, kind, Rows(23, 12))
    assert list(part.inputs) == (["decoder_input_ids", "input_ids"] if pairs else ["input_ids"])
    for given in (part.inputs, *part.others):
        assert torch.equal(part.module(*given.values()), called(**given))
    about = described(called)
    assert (about["loader"], about["model"]) == ("weights", called.model)


def test_rows_are_the_same_every_time_and_no_longer_than_the_context():
    rows = Rows(23, 5)
    assert torch.equal(rows.ids(3, 4), Rows(23, 5).ids(3, 4))
    assert max(length for _, length, _ in rows.sizes) == 5
    assert max(length for _, length, _ in Rows(23, 2**31 - 1).sizes) == 64
    with pytest.raises(ValueError, match="sees 3 tokens at once; .* 4 at least"):
        Rows(23, 3)


def test_an_origin_names_no_place_of_this_machine(tmp_path):
    assert origin_of("hf:gpt2", "main") == "hf:gpt2@main"
    assert origin_of("example:bert") == "example:bert"
    assert origin_of(f"hf:{tmp_path / 'mine'}") == "mine"
    assert origin_of("") == ""


@pytest.mark.parametrize(
    ("told", "failed", "note"),
    [
        ("complete after 130 steps", False, ""),
        ("interrupted", False, "training was interrupted at step 130 of 3000"),
        ("ValueError: no", True, "training failed at step 130 of 3000"),
    ],
)
def test_what_is_exported_of_an_unfinished_run_says_so(told, failed, note, tmp_path):
    run = Run.create(tmp_path, "run", Config())
    assert unfinished(run, 3000) == ""
    run.begin_session(130)
    Tracking(run).close(told, failed=failed)
    assert unfinished(run, 3000) == note


def test_a_run_is_exported_with_its_best_weights_and_their_metrics(tmp_path):
    table = tmp_path / "rows.jsonl"
    lines = [{"text": f"the {name} bird {at}", "label": name} for at in range(200) for name in ("red", "blue")]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = {"source": str(table), "tokenizer": {"kind": "wordpiece", "vocab_size": 300}, "max_length": 16}
    short = {
        "max_steps": 6, "batch_size": 4, "eval_batch_size": 2, "warmup_steps": 1, "eval_every": 2, "eval_batches": 2,
        "sample_every": None,
        "keep_last": 3, "lr": 0.1, "device": "cpu", "precision": "fp32", "trackers": (),
    }  # fmt: skip
    run = train(load_recipe("classifier_smoke").replace(rows=rows, train=short), tmp_path).run
    found, losses = exportable_of(run), run.metrics()["validation/loss"].dropna()
    assert found.step == open_trained(run.path).step == losses[::-1].idxmin()
    assert found.metrics["validation/loss"] == losses[found.step]
    assert (found.kind, found.loader, found.builds) == ("classifier", "ours", "utils.models.bert:TextClassifier")
    assert found.classes == ("blue", "red")
    assert found.config["num_classes"] == 2
    assert found.origin == "example:classifier"
    best = open_trained(run.path).model.state_dict()
    assert all(torch.equal(value, best[name]) for name, value in found.model.state_dict().items())
    assert exportable_of(run.path).config == found.config

    assert found.note == ""
    finish(run)  # judges the whole split, and keeps the intervals of its batches
    judged = exportable_of(run)
    loss = judged.metrics["validation/loss"]
    content = json.loads((run.path / "results" / "metrics.json").read_text())
    assert content["step"] == found.step
    assert loss == content["results"]["validation"]["loss"]
    assert loss["low"] < loss["value"] < loss["high"]
    assert judged.metrics["validation/macro_f1"] == pytest.approx(content["results"]["validation"]["macro_f1"])
    told = (run.path / "report.md").read_text()
    assert f"{loss['value']:.4f} [{loss['low']:.4f}, {loss['high']:.4f}]" in told
    (run.path / "results" / "metrics.json").write_text(json.dumps({**content, "step": found.step + 1}))
    assert exportable_of(run).metrics == found.metrics  # of other weights

    weights = run.path / "checkpoints" / f"step-{found.step:08}" / "state.pt"
    weights.write_bytes(weights.read_bytes()[:-7])
    other = exportable_of(run)
    assert other.step != found.step
    assert f"step-{found.step:08}.damaged" in other.note
