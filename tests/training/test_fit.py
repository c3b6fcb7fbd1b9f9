"""What one uninterrupted `fit` does: exact gradients, the same numbers from the same seed, and when it stops."""

import math
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from utils.core.checkpoints import Checkpoints
from utils.training.fit import NonFiniteError
from utils.training.objectives import next_token


class PaddedRows:
    """19 rows of unequal length, in an order that is a function of (seed, epoch): batches of 8, 8 and 3."""

    def __init__(self, pad_id):
        draw = torch.Generator().manual_seed(0)
        self.ids, self.lengths = torch.randint(10, (19, 9), generator=draw), 1 + torch.arange(19) % 8
        self.pad_id = pad_id

    def num_batches(self, batch_size, *, seed=None, epoch=0):
        return -(-19 // batch_size)

    def batches(self, batch_size, *, seed=None, epoch=0, start=0):
        order = torch.arange(19)
        if seed is not None:
            order = torch.randperm(19, generator=torch.Generator().manual_seed(seed + epoch))
        for rows in order.split(batch_size)[start:]:
            ids, padding = self.ids[rows], torch.arange(8) >= self.lengths[rows, None]
            inputs, labels = ids[:, :-1].masked_fill(padding, self.pad_id), ids[:, 1:].masked_fill(padding, -100)
            yield {"input_ids": inputs, "labels": labels}


class PaddedData:
    fingerprint = "padded"

    def __init__(self, pad_id=0):
        self.train = self.validation = PaddedRows(pad_id)


def saved(run, step):
    """The state that a run saved at a step."""
    return next(one for one in Checkpoints(run.path / "checkpoints").all() if one.step == step).load()


def accumulated(state, beta=0.9):
    """The gradient of AdamW's first step, flat: its first moment is then (1 - beta) times it."""
    moments = state["optimizer"]["state"]
    return torch.cat([moments[index]["exp_avg"].flatten() for index in sorted(moments)]) / (1 - beta)


def seen_by(train, **changes):
    """The ids of each training batch that `fit` hands to its objective."""
    seen = []

    def objective(model, batch, step):
        if model.training and torch.is_grad_enabled():  # not the counting of FLOPs
            seen.append(batch["input_ids"])
        return next_token(model, batch, step)

    return train(objective=objective, **changes), seen


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulation_equals_the_whole_batch(micro, train, tiny_model, trace):
    settings = {"data": PaddedData(), "batch_size": 8, "max_epochs": 3, "max_steps": None, "lr": 1e-3}
    whole, parts = (train(tiny_model(), micro_batch_size=rows, **settings).run for rows in (None, micro))
    names = ["train/loss", "train/accuracy", "train/grad_norm"]
    one, other = (torch.tensor(trace(run)[names].values, dtype=torch.float32) for run in (whole, parts))
    assert len(one) == 9  # three epochs of 8, 8 and 3 rows
    assert_close(one, other)
    assert_close(saved(parts, 9)["model"], saved(whole, 9)["model"])


@pytest.mark.parametrize("limit", [None, 0.05])
def test_gradient_is_that_of_the_mean_over_the_batchs_targets_clipped(limit, train, tiny_model, trace):
    settings = {"batch_size": 8, "micro_batch_size": 2, "max_grad_norm": limit, "checkpoint_every": 1, "keep_last": 99}
    run = train(tiny_model(), data=PaddedData(), **settings).run
    model = tiny_model()
    batch = next(PaddedRows(0).batches(8, seed=1337))
    next_token(model, batch, 0)["loss"].backward()
    order = sorted(model.parameters(), key=lambda parameter: parameter.dim() < 2)  # AdamW's groups: matrices first
    expected = torch.cat([parameter.grad.flatten() for parameter in order])
    norm = expected.norm()
    assert norm > 0.1
    assert trace(run)["train/grad_norm"][1] == pytest.approx(norm.item(), rel=1e-5)  # before clipping
    assert_close(accumulated(saved(run, 1)), expected * (limit / norm if limit else 1))


@pytest.mark.parametrize("pad_id", [0, 3, 9])
def test_id_of_padding_changes_no_number(pad_id, train, tiny_model, trace):
    runs = [train(tiny_model(), data=PaddedData(pad), batch_size=8).run for pad in (5, pad_id)]
    assert trace(runs[0]).equals(trace(runs[1]))


def test_seed_decides_every_number(train, tiny_model, trace):
    first, again, other = (trace(train(tiny_model(dropout=0.2), seed=seed).run) for seed in (1, 1, 2))
    assert first.equals(again)
    assert (first["train/loss"] != other["train/loss"]).all()


def test_max_epochs_learns_every_target_once_an_epoch_in_another_order(train, data):
    result, seen = seen_by(train, max_epochs=2, max_steps=None)
    steps = [data.train.num_batches(6, seed=1337, epoch=epoch) for epoch in (0, 1)]
    assert result.progress.step == len(seen) == sum(steps) == 18
    assert result.progress.targets == 2 * data.train.targets
    epochs = [{tuple(row) for batch in part for row in batch.tolist()} for part in (seen[: steps[0]], seen[steps[0] :])]
    assert not any(torch.equal(one, other) for one, other in zip(seen, seen[steps[0] :]))
    assert epochs[0] != epochs[1]  # the cuts between rows move, too


def test_watching_changes_no_weight(train, tiny_model, trace):
    plain, watched = tiny_model(dropout=0.2), tiny_model(dropout=0.2)
    last = {"restore_best": False}
    one = train(plain, eval_every=100, log_every=5, **last)
    texts = []
    settings = {"eval_every": 2, "sample_every": 3, "checkpoint_every": 2}
    other = train(watched, sample=lambda *_: texts.append(torch.rand(1)) or "text", **settings, **last)
    assert len(texts) == 4  # after steps 3, 6, 9 and the last
    assert_close(watched.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert trace(one.run)["train/loss"].dropna().equals(trace(other.run)["train/loss"].loc[[1, 5, 10]])


@pytest.mark.parametrize(("part", "value"), [(0, math.nan), (2, math.inf)])
def test_loss_that_is_not_finite_stops_before_the_step_and_names_its_batch(
    part, value, train, tiny_model, data, new_run
):
    model, run, bad = tiny_model(), new_run(), []

    def objective(model, batch, step):
        values = next_token(model, batch, step)
        if model.training and step == 12:
            bad.append(batch)
            if len(bad) == part + 1:
                values["loss"] = values["loss"] * value
        return values

    settings = {"max_steps": 20, "micro_batch_size": 2, "checkpoint_every": 12, "eval_every": 100}
    with pytest.raises(NonFiniteError, match=r"before step 13, in batch 3 of epoch 1\.") as caught:
        train(model, objective=objective, run=run, **settings)
    call = re.search(r"next\(data\.train\.batches\([^()]*\)\)", str(caught.value)).group()
    named = eval(call, {"data": data, "next": next})
    assert torch.equal(named["input_ids"], torch.cat([batch["input_ids"] for batch in bad]))
    assert_close(model.state_dict(), saved(run, 12)["model"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("losses", "changes", "stop", "best", "left"),
    [
        ([3, 2, 1, 1.5, 2, 0], {}, 10, 6, 6),
        ([3, 2, 3, 1, 2, 1.5, 0], {}, 12, 8, 8),
        ([3, 2, 1, 1.5, 2, 0], {"restore_best": False}, 10, 6, 10),
        ([3, 2.95, 2.97, 0], {"min_delta": 0.1}, 6, 4, 4),  # a fall of less than 0.1 does not count as improvement
        ([math.nan, math.inf], {}, 4, 0, 4),
        ([math.nan, 3, math.nan, 1, 2, math.inf, 0], {}, 12, 8, 8),
    ],
)
def test_early_stopping_at_the_expected_step_restores_the_best_weights(
    losses, changes, stop, best, left, train, tiny_model
):
    model, weights = tiny_model(), []

    def objective(model, batch, step):
        if model.training or len(batch["labels"]) == 1:  # the one row that `Speed` counts
            return next_token(model, batch, step)
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"loss": torch.tensor(float(losses[len(weights) - 1]))}

    settings = {"max_steps": 50, "eval_every": 2, "eval_batches": 1, "patience": 2, **changes}
    result = train(model, objective=objective, **settings)
    assert result.progress.finished == f"stopped early after {stop} steps"
    assert (result.progress.best_step, result.weights_step) == (best, left)
    assert_close(model.state_dict(), weights[left // 2 - 1], rtol=0, atol=0)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_products_and_weights_stay_fp32(precision, dtype, train, tiny_model):
    model, seen = tiny_model(), {True: set(), False: set()}
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda layer, _, output: seen[model.training].add(output.dtype))
    train(model, precision=precision, max_steps=3)
    assert seen == {True: {dtype}, False: {dtype}}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_batch_without_a_target_is_refused(train):
    data = PaddedData()
    data.train.lengths = torch.zeros(19, dtype=torch.long)
    with pytest.raises(ValueError, match="batch 0 of epoch 0 has no targets"):
        train(data=data)
