"""The learning rate against closed forms, and what is decayed."""

import math

import pytest
import torch

from utils.training.optim import decay_groups, learning_rate, make_optimizer

# 21 steps, 4 of warm-up: it rises by fifths, then 16 steps lie between step 4 (the highest) and step 20 (the last).
POINTS = {"first": 0, "end of warm-up": 3, "highest": 4, "quarter": 8, "middle": 12, "last": 20}
CLOSED = {
    "constant": [0.2, 0.8, 1, 1, 1, 1],
    "linear": [0.2, 0.8, 1, 0.1 + 0.9 * 0.75, 0.1 + 0.9 * 0.5, 0.1],
    "cosine": [0.2, 0.8, 1, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2, 0.1 + 0.9 * 0.5, 0.1],
    "wsd": [0.2, 0.8, 1, 1, 1, 0.1],  # 8 of the 21 steps decay: the last at lr is step 12
}


@pytest.mark.parametrize("schedule", CLOSED)
def test_learning_rate_follows_its_closed_form(schedule, settings):
    config = settings(lr=0.3, schedule=schedule, warmup_steps=4, max_steps=21, min_lr_ratio=0.1, decay_share=8 / 21)
    rates = [learning_rate(step, 21, config) / 0.3 for step in POINTS.values()]
    assert rates == pytest.approx(CLOSED[schedule])


@pytest.mark.parametrize("schedule", CLOSED)
def test_fit_makes_each_step_with_its_learning_rate(schedule, train, trace, settings):
    changes = {"schedule": schedule, "max_steps": 8, "warmup_steps": 2}
    logged = trace(train(**changes).run)["train/lr"]
    assert logged.to_list() == [learning_rate(step, 8, settings(**changes)) for step in range(8)]


def test_wsd_falls_by_the_root_of_the_share_of_its_decay(settings):
    config = settings(lr=2.0, schedule="wsd", warmup_steps=0, max_steps=20, min_lr_ratio=0.5, decay_share=0.45)
    # 9 steps decay, 11 to 19: after k of them the rate is 2 (0.5 + 0.5 (1 - sqrt(k / 9))). Roots of 1/9, 4/9 and 1.
    assert [learning_rate(step, 20, config) for step in (0, 10, 11, 14, 19)] == pytest.approx(
        [2, 2, 1 + 2 / 3, 1 + 1 / 3, 1]
    )


@pytest.mark.parametrize(("warmup", "share"), [(0, 1.0), (7, 0.3), (2, 0.01)])
def test_wsd_ends_at_its_lowest_rate_however_long_its_parts_are(warmup, share, settings):
    config = settings(lr=1.0, schedule="wsd", warmup_steps=warmup, max_steps=10, min_lr_ratio=0.0, decay_share=share)
    rates = [learning_rate(step, 10, config) for step in range(10)]
    assert rates[-1] == 0
    assert max(rates) == 1
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize("total", [1, 3])
def test_warm_up_may_take_every_step(total, settings):
    config = settings(max_steps=total, warmup_steps=total, lr=1.0)
    assert [learning_rate(step, total, config) for step in range(total)] == pytest.approx(
        [(step + 1) / (total + 1) for step in range(total)]
    )


def test_matrices_and_embeddings_decay_and_gains_and_biases_do_not(tiny_model, settings):
    model = tiny_model(bias=True, positions="learned")
    model.blocks[0].requires_grad_(False)
    before = {name: parameter.detach().clone().fill_(1.0) for name, parameter in model.named_parameters()}
    config = settings(lr=0.5, weight_decay=0.1)
    optimizer = make_optimizer(model, config, torch.device("cpu"), "fp32")
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)  # so that decay alone moves it
    optimizer.step()
    for name, parameter in model.named_parameters():
        decayed = parameter.dim() == 2 and not name.startswith("blocks.0")
        # AdamW (Loshchilov and Hutter 2019): a decayed weight loses lr * weight_decay of itself a step.
        expected = before[name] * (1 - 0.5 * 0.1 if decayed else 1)
        torch.testing.assert_close(parameter.detach(), expected)


def test_each_trainable_parameter_is_in_one_group(tiny_model, settings):
    model = tiny_model(bias=True)  # its head is tied to its embedding
    grouped = [parameter for group in decay_groups(model, settings()) for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", True), ("fp16", False)])
def test_adamw_is_fused_but_for_fp16(precision, fused, tiny_model, settings):
    optimizer = make_optimizer(tiny_model(), settings(), torch.device("cpu"), precision)
    assert optimizer.defaults["fused"] is fused
