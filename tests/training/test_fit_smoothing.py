"""Label smoothing from the config to the loss."""

import pytest
import torch

from utils.core.config import ConfigError
from utils.training.evaluate import evaluate
from utils.training.fit import smoothed
from utils.training.objectives import next_token


def test_smoothing_acts_on_the_training_loss_alone(train, tiny_model, data, settings):
    plain, soft = (train(tiny_model(), label_smoothing=share, max_steps=3).run.metrics() for share in (0.0, 0.2))
    batch = next(data.train.batches(6, seed=1337))
    log_odds = tiny_model()(batch["input_ids"]).log_softmax(-1)  # of the weights before the first step
    right = -log_odds.gather(-1, batch["labels"][..., None]).mean()
    # Szegedy et al. 2016: 0.8 on the label, 0.2 spread over all 10 tokens.
    expected = 0.8 * right - 0.2 * log_odds.mean()
    assert plain["train/loss"][1] == pytest.approx(right.item(), rel=1e-5)
    assert soft["train/loss"][1] == pytest.approx(expected.item(), rel=1e-5)
    assert plain["train/accuracy"][1] == soft["train/accuracy"][1]


def test_evaluation_is_not_smoothed(train, tiny_model, data, settings):
    model = tiny_model()
    result = train(model, label_smoothing=0.2, restore_best=False)
    assert result.validation["loss"] == evaluate(model, next_token, data.validation, settings())["loss"]


def test_objective_without_the_keyword_is_refused(train, new_run):
    def elbo(model, batch, step):
        return {"loss": torch.zeros(())}

    with pytest.raises(ConfigError, match=r"label_smoothing is 0\.1, and the objective elbo takes no label_smoothing"):
        train(objective=elbo, label_smoothing=0.1)
    assert smoothed(elbo, 0.0) is elbo
