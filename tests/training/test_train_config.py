"""Contradictory settings raise when the config is made; what a resumed run may change is outside `arithmetic`."""

import pytest

from utils.core.config import ConfigError
from utils.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"max_steps": 10, "max_epochs": 1}, "exactly one"),
        ({"max_steps": 200, "batch_size": 8, "micro_batch_size": 3}, "batch_size 8 is not a multiple of.* 3"),
        ({"max_steps": 99}, "warmup_steps 100 exceed max_steps 99"),
        ({"max_steps": 200, "lr": 0.0}, "lr"),
        ({"max_steps": 200, "min_lr_ratio": 1.5}, "min_lr_ratio"),
        ({"max_steps": 200, "max_grad_norm": 0.0}, "max_grad_norm"),
        ({"max_steps": 200, "keep_last": 0}, "keep_last"),
        ({"max_steps": 200, "schedule": "step"}, "schedule"),
        ({"max_steps": 200, "schedule": "wsd", "decay_share": 0.6}, "warmup_steps 100 and a decay of 120 .* exceed"),
        ({"max_steps": 200, "ema_decay": 1.0}, "ema_decay"),
        ({"max_steps": 200, "label_smoothing": 1.0}, "label_smoothing"),
        ({"max_steps": 200, "max_hours": 0}, "max_hours"),
        ({"max_steps": 200, "leraning_rate": 1.0}, "leraning_rate"),
    ],
)
def test_contradiction_raises_and_says_what_it_is(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig.load(None, **settings)


@pytest.mark.parametrize(
    ("change", "decides"),
    [
        ({"lr": 1.0}, True),
        ({"batch_size": 6}, True),
        ({"micro_batch_size": 6}, True),
        ({"seed": 0}, True),
        ({"eval_every": 7}, True),  # decides which weights are the best ones
        ({"decay_share": 0.5}, True),
        ({"ema_decay": 0.9}, True),
        ({"label_smoothing": 0.1}, True),
        ({"gradient_checkpointing": True}, False),
        ({"max_hours": 1.0}, False),
        ({"local_checkpoints": "disk"}, False),
        ({"device": "cpu"}, False),
        ({"precision": "fp32"}, False),
        ({"log_every": 7}, False),
        ({"checkpoint_every": 7}, False),
        ({"trackers": ()}, False),
    ],
)
def test_arithmetic_is_what_decides_the_weights(change, decides):
    one = TrainConfig(max_steps=100)
    assert (one.arithmetic() != one.replace(**change).arithmetic()) == decides
