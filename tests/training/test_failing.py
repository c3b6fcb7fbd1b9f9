"""A row that cannot be learned from is named, with the call that shows it."""

import re

import pytest
import torch
from torch.testing import assert_close

from utils.training.evaluate import evaluate
from utils.training.failing import RowError
from utils.training.objectives import next_token


def failing_on(rows):
    """next_token, which refuses a batch with any of these rows."""

    def objective(model, batch, step):
        for row in rows:
            if (batch["input_ids"] == row).all(1).any():
                raise IndexError("index out of range in self")
        return next_token(model, batch, step)

    return objective


def shown(error, **names):
    """What the expression in an error's message gives."""
    return eval(re.search(r"See \w+ with (\{.*\.items\(\)\})", str(error)).group(1), {"next": next, **names})


@pytest.mark.parametrize("micro", [None, 2])
@pytest.mark.parametrize("which", [[4], [0, 5]])
def test_rows_that_fail_are_named_and_shown_and_the_weights_stay(which, micro, train, data, tiny_model, new_run):
    batch = next(data.train.batches(6, seed=1337, epoch=1, start=2))
    objective = failing_on(batch["input_ids"][which])
    model, run = tiny_model(dropout=0.2), new_run()
    pattern = rf"Rows? {', '.join(map(str, which))} .*of batch 2 of epoch 1 fails?: IndexError: index out of range"
    settings = {"max_steps": 20, "micro_batch_size": micro, "checkpoint_every": 1, "keep_last": 1, "eval_every": 99}
    with pytest.raises(RowError, match=pattern) as caught:
        train(model, objective=objective, run=run, **settings)
    found = shown(caught.value, data=data)
    rows = which if len(which) > 1 else which[0]
    assert torch.equal(found["input_ids"], batch["input_ids"][rows])
    assert torch.equal(found["labels"], batch["labels"][rows])
    assert isinstance(caught.value.__cause__, IndexError)
    other = tiny_model(dropout=0.2)
    with pytest.raises(RowError):
        train(other, objective=objective, **settings)
    assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_row_of_the_first_batch_is_named_too(train, data):
    batch = next(data.train.batches(6, seed=1337))
    with pytest.raises(RowError, match="Row 1 .*of batch 0 of epoch 0"):
        train(objective=failing_on(batch["input_ids"][1:2]))


@pytest.mark.parametrize("every", [True, False])
def test_what_is_no_rows_fault_travels_as_it_is(every, train):
    def objective(model, batch, step):
        if step == 3 and (every or model.training):  # alone, in evaluation mode: every row, or none
            raise ZeroDivisionError("mine")
        return next_token(model, batch, step)

    with pytest.raises(ZeroDivisionError, match="mine"):
        train(objective=objective)


def test_a_row_that_fails_in_evaluation_is_named(data, tiny_model, settings):
    batch = next(data.validation.batches(2, start=1))
    objective = failing_on(batch["input_ids"][1:])
    with pytest.raises(RowError, match=r"Row 1 .*of batch 1 fails") as caught:
        evaluate(tiny_model(), objective, data.validation, settings(eval_batch_size=2))
    assert torch.equal(shown(caught.value, split=data.validation)["input_ids"], batch["input_ids"][1])
