"""Evaluation against closed forms and a direct computation; it leaves model and generators as they were."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from utils.core import repro
from utils.data.loaders import TokenBlocks
from utils.training.evaluate import evaluate
from utils.training.objectives import OBJECTIVES, next_token


class Counting(nn.Module):
    """Sure that the id after n is n + 1, modulo V; or, with `sure` 0, of nothing."""

    def __init__(self, V, sure):
        super().__init__()
        self.V, self.sure = V, sure

    def forward(self, input_ids, attention_mask=None):
        return self.sure * nn.functional.one_hot((input_ids + 1) % self.V, self.V).float()


# 0 1 2 3 4 0 1 2 ...: 33 tokens, written with 66 characters and 99 bytes.
COUNT = TokenBlocks(np.arange(33, dtype=np.uint16) % 5, 8, 66, 99)


def test_model_that_is_always_right_has_accuracy_1_and_perplexity_1(settings):
    values = evaluate(Counting(5, 1000.0), next_token, COUNT, settings())
    expected = {"loss": 0, "accuracy": 1, "perplexity": 1, "bits_per_character": 0, "bits_per_byte": 0}
    assert values == pytest.approx(expected)


def test_uniform_model_has_perplexity_v(settings):
    values = evaluate(Counting(5, 0.0), next_token, COUNT, settings())
    assert values["perplexity"] == pytest.approx(5)
    assert values["bits_per_character"] == pytest.approx(math.log2(5) / 2)  # 2 characters a token
    assert values["bits_per_byte"] == pytest.approx(math.log2(5) / 3)
    assert values["accuracy"] == pytest.approx(6 / 32)  # it says 0, which 6 of the 32 targets are


@pytest.mark.parametrize("changes", [{"eval_batch_size": 1}, {"eval_batch_size": 5}, {"micro_batch_size": 2}, {}])
def test_result_equals_a_direct_computation_for_any_batch_size(changes, data, tiny_model, settings):
    model = tiny_model(dropout=0.5)  # it is off
    tokens = torch.from_numpy(data.validation.tokens.astype(np.int64))  # 50: six rows of 8 targets, one of 1
    losses, right = [], 0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 8):
            ids = tokens[start : start + 9]
            log_p = model.eval()(ids[None, :-1])[0].double().log_softmax(-1)
            losses += (-log_p[range(len(ids) - 1), ids[1:]]).tolist()
            right += int((log_p.argmax(-1) == ids[1:]).sum())
    values = evaluate(model, next_token, data.validation, settings(**changes))
    assert len(losses) == data.validation.targets == 49
    assert values["loss"] == pytest.approx(sum(losses) / 49)
    assert values["accuracy"] == pytest.approx(right / 49)


def test_eval_batches_takes_the_first_ones(data, tiny_model, settings):
    model = tiny_model()
    batch = next(data.validation.batches(3))
    values = evaluate(model, next_token, data.validation, settings(eval_batch_size=3, eval_batches=1))
    assert values["loss"] == pytest.approx(next_token(model, batch, 0)["loss"].item())


@pytest.mark.parametrize("training", [True, False])
def test_mode_gradients_and_generators_are_left_as_found(training, data, tiny_model, settings):
    def drawing(model, batch, step):
        assert not model.training
        assert not torch.is_grad_enabled()
        return {"loss": torch.rand(()) + np.random.rand()}

    model = tiny_model(dropout=0.2).train(training)
    with repro.preserved_rng():
        expected = torch.rand(3), np.random.rand()
    evaluate(model, drawing, data.validation, settings())
    assert model.training == training
    assert torch.equal(torch.rand(3), expected[0])
    assert np.random.rand() == expected[1]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mode_is_put_back_when_the_objective_raises(data, tiny_model, settings):
    model = tiny_model()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, lambda *_: 1 / 0, data.validation, settings())
    assert model.training


@pytest.mark.parametrize("task", ["causal_lm", "masked_lm"])
def test_every_language_task_has_perplexity_whether_or_not_its_split_knows_characters(task, settings):
    class Rows:
        """One row of eight targets."""

        def batches(self, batch_size, **_):
            ids = torch.arange(8)[None] % 5
            yield {"input_ids": ids, "labels": (ids + 1) % 5}

    for objective in (OBJECTIVES[task], functools.partial(OBJECTIVES[task], label_smoothing=0.1)):
        values = evaluate(Counting(5, 0.0), objective, Rows(), settings())
        assert values["perplexity"] == pytest.approx(5)
        assert set(values) == {"loss", "accuracy", "perplexity"}


def test_a_classifier_has_no_perplexity(settings):
    class Rows:
        def batches(self, batch_size, **_):
            yield {"input_ids": torch.zeros(2, dtype=torch.long), "labels": torch.tensor([0, 1])}

    values = evaluate(Counting(2, 0.0), OBJECTIVES["classifier"], Rows(), settings())
    assert set(values) == {"loss", "accuracy"}
