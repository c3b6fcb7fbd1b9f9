"""Objectives against hand computations; padding, cuts and shares change nothing; smoothing acts in training alone."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from utils.data.masking import shift_right
from utils.models.bert import BERT, ClassifierConfig, TextClassifier
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.training.evaluate import evaluate
from utils.training.objectives import (
    IGNORED,
    OBJECTIVES,
    classify,
    count_targets,
    masked_token,
    micro_batches,
    next_token,
    sequence_to_sequence,
    shard,
    token_metrics,
)


def test_token_metrics_equal_a_hand_computation():
    # Odds 3:1, 1:1 and 1:3 for the classes 0 and 1; the last row is padding.
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0], [1.0, 3.0], [9.0, 1.0]]).log().view(2, 2, 2)
    labels = torch.tensor([[0, 1], [0, IGNORED]])
    values = token_metrics(logits, labels)
    expected = -(math.log(3 / 4) + math.log(1 / 2) + math.log(1 / 4)) / 3
    assert values["loss"].item() == pytest.approx(expected)
    assert values["accuracy"].item() == pytest.approx(1 / 3)  # argmax: 0 (right), 0 of a tie (wrong), 1 (wrong)


def test_no_target_gives_zero_loss_and_zero_gradient():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    values = token_metrics(logits, torch.full((2, 3), IGNORED))
    values["loss"].backward()
    assert values["loss"] == values["accuracy"] == 0
    assert (logits.grad == 0).all()


def test_loss_of_half_precision_logits_is_computed_in_fp32():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(4)
    assert token_metrics(logits, labels)["loss"] == token_metrics(logits.float(), labels)["loss"]


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "alibi"])
@pytest.mark.parametrize("pad_id", [0, 4, 9])  # 9 is the last id, where an end-of-text token would stand
@pytest.mark.parametrize("side", ["left", "right", "rows"])
def test_padding_changes_no_loss(positions, pad_id, side, tiny_model):
    model = tiny_model(positions=positions, context_length=12).eval()
    ids = torch.randint(10, (3, 9), generator=torch.Generator().manual_seed(0))
    plain = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}
    pad = torch.full((3, 8 if side == "rows" else 4), pad_id)
    parts = {"input_ids": [plain["input_ids"], pad], "labels": [plain["labels"], torch.full_like(pad, IGNORED)]}
    parts["attention_mask"] = [torch.ones(3, 8, dtype=torch.long), torch.zeros_like(pad)]
    if side == "left":
        parts = {name: pieces[::-1] for name, pieces in parts.items()}
    else:
        del parts["attention_mask"]  # needed on the left alone
    padded = {name: torch.cat(pieces, dim=0 if side == "rows" else 1) for name, pieces in parts.items()}
    assert count_targets(padded) == count_targets(plain) == 24
    assert_close(next_token(model, padded, 0), next_token(model, plain, 0))


@pytest.mark.parametrize(("rows", "world"), [(6, 2), (7, 2), (1, 3)])
def test_shares_of_processes_are_equal_and_hold_every_target_once(rows, world):
    ids = torch.arange(rows * 4).view(rows, 4)
    batch = {"input_ids": ids, "labels": ids + 100, "attention_mask": torch.ones_like(ids)}
    parts = [shard(batch, rank, world) for rank in range(world)]
    assert {tuple(value.shape) for part in parts for value in part.values()} == {(math.ceil(rows / world), 4)}
    labels = torch.cat([part["labels"] for part in parts])
    assert sorted(labels[labels != IGNORED].tolist()) == (ids + 100).flatten().tolist()
    for part in parts:
        real = part["labels"] != IGNORED
        assert torch.equal(part["labels"][real], part["input_ids"][real] + 100)


def test_uneven_rows_without_labels_are_refused():
    with pytest.raises(ValueError, match="3 rows cannot be shared by 2"):
        shard({"images": torch.zeros(3, 2)}, 0, 2)


def test_micro_batches_cut_rows_in_order_with_the_rest_last():
    batch = {"input_ids": torch.arange(10).view(5, 2), "labels": torch.arange(10).view(5, 2)}
    parts = micro_batches(batch, 2)
    assert [len(part["labels"]) for part in parts] == [2, 2, 1]
    assert all(torch.equal(torch.cat([part[name] for part in parts]), batch[name]) for name in batch)
    assert micro_batches(batch, None) == [batch]


def test_rows_are_the_targets_where_there_are_no_labels():
    assert count_targets({"images": torch.zeros(3, 2)}) == 3


V, CLASSES, START = 11, 3, 1
LENGTHS = [5, 1, 8, 3, 2, 7, 4, 6, 1, 8, 3]


class Ragged:
    """Eleven rows of one to eight tokens of a task, padded to the longest of a batch, and no target in the fifth."""

    def __init__(self, task, lengths=LENGTHS):
        self.task = task
        self.rows = [self.row(number, length) for number, length in enumerate(lengths)]
        if task != "classifier":
            self.units = {}

    def row(self, number, length):
        """One row by itself, unpadded, (T,)."""
        draw = torch.Generator().manual_seed(number)
        ids = torch.randint(2, V, (length,), generator=draw)
        row = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.task == "classifier":
            row["labels"] = ids[0] % CLASSES
        elif self.task == "seq2seq":
            row["labels"] = torch.randint(2, V, (9 - length,), generator=draw)
        elif self.task == "causal_lm":
            row["labels"] = torch.cat((ids[1:], torch.tensor([2])))
        else:
            chosen = torch.rand(length, generator=draw) < 0.5
            chosen[0] = True
            row["labels"] = torch.where(chosen, ids, IGNORED)
            row["input_ids"] = torch.where(chosen, 0, ids)
        if number == 4:
            row["labels"] = torch.full_like(row["labels"], IGNORED)
        if self.task == "seq2seq":
            row["decoder_input_ids"] = torch.from_numpy(shift_right(row["labels"].numpy(), START, 5))
            row["decoder_attention_mask"] = torch.ones_like(row["labels"])
        return row

    def num_batches(self, batch_size, *, seed=None, epoch=0):
        return -(-len(self.rows) // batch_size)

    def batches(self, batch_size, *, seed=None, epoch=0, start=0):
        for first in range(start * batch_size, len(self.rows), batch_size):
            rows, batch = self.rows[first : first + batch_size], {}
            for name in rows[0]:
                fill = IGNORED if name == "labels" else 0 if name.endswith("mask") else 5  # an ordinary token's id
                values = [row[name] for row in rows]
                stack = self.task == "classifier" and name == "labels"
                batch[name] = torch.stack(values) if stack else nn.utils.rnn.pad_sequence(values, True, fill)
            yield batch


def make(task):
    """A tiny model of a task, whose every input sways its outputs."""
    shape = {"vocab_size": V, "context_length": 9, "num_layers": 2, "num_heads": 2, "width": 16}
    torch.manual_seed(0)
    if task == "classifier":
        model = TextClassifier(ClassifierConfig(**shape, num_classes=CLASSES))
    elif task == "seq2seq":
        model = T5(T5Config(**shape))
    else:
        model = {"causal_lm": GPT, "masked_lm": BERT}[task](TransformerConfig(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


class Known(nn.Module):
    """Finds each row of a batch in the split, and is sure of its labels; or, with `sure` 0, of nothing."""

    def __init__(self, split, sure):
        super().__init__()
        self.sure, self.classes = sure, CLASSES if split.task == "classifier" else V
        self.answers = {tuple(row["input_ids"].tolist()): row["labels"] for row in split.rows}

    def forward(self, input_ids, attention_mask, decoder_input_ids=None, decoder_attention_mask=None):
        answers = [self.answers[tuple(ids[there == 1].tolist())] for ids, there in zip(input_ids, attention_mask)]
        width = (input_ids if decoder_input_ids is None else decoder_input_ids).shape[1]
        if self.classes == V:
            answers = [nn.functional.pad(answer, (0, width - len(answer)), value=0) for answer in answers]
        labels = torch.stack(answers)
        return self.sure * nn.functional.one_hot(labels.clamp(min=0), self.classes).float()


TASKS = pytest.mark.parametrize("task", sorted(OBJECTIVES))
ONE_EACH = [8, 7, 6, 5, 4, 3, 8, 2]  # lengths of rows that no two share all tokens of


@TASKS
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_model_that_is_always_right_has_accuracy_1_and_perplexity_1(task, rows, settings):
    split = Ragged(task, ONE_EACH)
    values = evaluate(Known(split, 1000.0), OBJECTIVES[task], split, settings(eval_batch_size=rows))
    expected = {"loss": 0.0, "accuracy": 1.0} | ({} if task == "classifier" else {"perplexity": 1.0})
    assert values == pytest.approx(expected)


@TASKS
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_uniform_model_has_perplexity_v(task, rows, settings):
    split = Ragged(task, ONE_EACH)
    values = evaluate(Known(split, 0.0), OBJECTIVES[task], split, settings(eval_batch_size=rows))
    number = CLASSES if task == "classifier" else V
    assert math.exp(values["loss"]) == pytest.approx(number)
    assert values.get("perplexity", number) == pytest.approx(number)


@TASKS
@pytest.mark.parametrize("rows", [1, 2, 4, 11])
def test_means_are_over_all_targets_for_any_batch_size(task, rows, settings):
    model, split = make(task), Ragged(task)
    losses, right = [], 0
    for row in split.rows:  # each by itself, without padding and without a mask
        inputs = {name: row[name][None] for name in ("input_ids", "decoder_input_ids") if name in row}
        with torch.no_grad():
            log_p = model.eval()(**inputs)[0].double().log_softmax(-1).view(-1, CLASSES if task == "classifier" else V)
        for place, label in enumerate(row["labels"].view(-1).tolist()):
            if label != IGNORED:
                losses.append(-log_p[place, label].item())
                right += int(log_p[place].argmax() == label)
    values = evaluate(model, OBJECTIVES[task], split, settings(eval_batch_size=rows))
    assert len(losses) == sum(count_targets(batch) for batch in split.batches(rows))
    assert values["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert values["accuracy"] == pytest.approx(right / len(losses))
    assert len({round(loss, 3) for loss in losses}) > len(losses) / 2  # the model tells its inputs apart


@TASKS
def test_smoothing_has_its_closed_form_in_training_and_none_in_evaluation(task, settings):
    # The target is 1 - e on the label and e / K on each of K: the loss, (1 - e) nll + e mean_k(-log p_k).
    model, batch, e = make(task).train(), next(Ragged(task).batches(11)), 0.3
    smoothed = partial(OBJECTIVES[task], label_smoothing=e)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    kept = batch["labels"] != IGNORED
    log_p = model(**inputs).double().log_softmax(-1)[kept]
    likelihood = -log_p.gather(1, batch["labels"][kept][:, None])[:, 0]
    expected = ((1 - e) * likelihood - e * log_p.mean(-1)).mean()
    plain = OBJECTIVES[task](model, batch, 0)
    values = smoothed(model, batch, 0)
    assert values["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert values["accuracy"] == plain["accuracy"]
    assert abs(values["loss"] - plain["loss"]) > 0.01
    assert_close(smoothed(model.eval(), batch, 0), plain)
    evaluated = [evaluate(model.train(), each, Ragged(task), settings()) for each in (smoothed, OBJECTIVES[task])]
    assert evaluated[0] == evaluated[1]


@TASKS
def test_batch_without_targets_gives_zero_loss_and_zero_gradient(task):
    model, batch = make(task), next(Ragged(task).batches(3))
    values = OBJECTIVES[task](model, {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}, 0)
    values["loss"].backward()
    assert values["loss"] == values["accuracy"] == 0
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("objective", [next_token, masked_token, sequence_to_sequence, classify])
def test_models_are_called_by_keyword_with_all_but_the_labels(objective):
    class Recorder(nn.Module):
        def forward(self, **inputs):
            self.seen = inputs
            return torch.zeros(2, 3, 5)

    batch = {name: torch.ones(2, 3, dtype=torch.long) for name in ("input_ids", "decoder_input_ids", "labels")}
    model = Recorder()
    objective(model, batch, 0)
    assert set(model.seen) == {"input_ids", "decoder_input_ids"}
    assert all(value is batch[name] for name, value in model.seen.items())


def test_target_without_decoder_ids_is_refused():
    with pytest.raises(ValueError, match="no decoder_input_ids; make them .*shift_right"):
        sequence_to_sequence(make("seq2seq"), {"input_ids": torch.ones(1, 2), "labels": torch.ones(1, 2)}, 0)


def test_logits_that_do_not_fit_the_labels_are_refused():
    # As many rows of logits as labels, in another order: torch would take them.
    with pytest.raises(ValueError, match=r"\(2, 3, 5\) for labels of shape \(3, 2\); expected \(3, 2, V\)"):
        token_metrics(torch.zeros(2, 3, 5), torch.zeros(3, 2, dtype=torch.long))
