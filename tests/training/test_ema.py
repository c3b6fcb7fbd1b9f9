"""The average of the weights against its recurrence, by hand; and that it is what is judged, kept and left."""

import pytest
import torch
from torch.testing import assert_close

from utils.core.checkpoints import Checkpoints
from utils.training.ema import Average
from utils.training.evaluate import evaluate
from utils.training.objectives import next_token


def test_average_follows_its_recurrence_and_copies_the_newest_buffers():
    model = torch.nn.BatchNorm1d(1)
    average = Average(model, 0.5, torch.device("cpu"))
    for value in (2.0, 4.0, 8.0):
        torch.nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        average.update(model)
    # From 1: the decays are min(0.5, 2/11), min(0.5, 3/12) and min(0.5, 4/13).
    first = 1 * 2 / 11 + 2 * 9 / 11
    second = first * 3 / 12 + 4 * 9 / 12
    assert average.model.weight.item() == pytest.approx(second * 4 / 13 + 8 * 9 / 13)
    assert average.model.running_mean.item() == 8
    assert average.updates == 3


def test_decay_stops_rising_at_the_one_asked_for():
    model = torch.nn.Linear(1, 1, bias=False)
    average = Average(model, 0.15, torch.device("cpu"))
    before = average.model.weight.item()
    torch.nn.init.constant_(model.weight, 10.0)
    average.update(model)  # 2/11 would be more than 0.15
    assert average.model.weight.item() == pytest.approx(before * 0.15 + 10 * 0.85)


def test_restored_average_goes_on_as_if_it_had_never_stopped():
    model = torch.nn.Linear(2, 2)
    whole, parted = (Average(model, 0.9, torch.device("cpu")) for _ in "ab")
    for step in range(4):
        torch.nn.init.constant_(model.weight, float(step))
        whole.update(model)
        parted.update(model)
        saved = {name: value.clone() for name, value in parted.model.state_dict().items()}, parted.updates
        parted = Average(torch.nn.Linear(2, 2), 0.9, torch.device("cpu"))
        parted.restore(*saved)
    assert torch.equal(parted.model.weight, whole.model.weight)


def test_a_tied_matrix_is_averaged_once_and_stays_tied(tiny_model):
    model = tiny_model(tie_embeddings=True)
    average = Average(model, 0.5, torch.device("cpu"))
    assert average.model.head.weight is average.model.embedding.weight


def test_fit_evaluates_keeps_and_leaves_the_average_and_trains_as_without_it(train, tiny_model, data, settings):
    model, plain = tiny_model(), tiny_model()
    changes = {"checkpoint_every": 1, "keep_last": 99, "eval_every": 4}
    result = train(model, ema_decay=0.2, **changes)
    other = train(plain, restore_best=False, **changes)
    states, without = (
        {one.step: one.load() for one in Checkpoints(run.path / "checkpoints").all()} for run in (result.run, other.run)
    )
    expected = states[0]["model"]
    for step in range(1, 11):
        weights = states[step]["average"]["training_weights"]
        assert_close(weights, without[step]["model"], rtol=0, atol=0)
        decay = min(0.2, (1 + step) / (10 + step))  # of step 1, 2/11
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights.items()}
        assert_close(states[step]["model"], expected)
    losses = result.run.metrics()["validation/loss"].dropna()
    judge = tiny_model()
    for step in (4, 8, 10):
        judge.load_state_dict(states[step]["model"])
        assert evaluate(judge, next_token, data.validation, settings())["loss"] == losses[step]
    best = losses.idxmin()
    assert result.weights_step == best
    assert result.averaged
    assert "averaged weights" in str(result)
    assert_close(model.state_dict(), states[best]["model"], rtol=0, atol=0)


def test_samples_come_from_the_average_which_is_left_at_the_end(train, tiny_model):
    model, seen = tiny_model(), []

    def sample(sampled, step):
        seen.append(sampled)
        return "text"

    train(model, sample=sample, sample_every=10, ema_decay=0.5, restore_best=False)
    assert seen[0] is not model
    assert_close(model.state_dict(), seen[0].state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(("before", "after"), [(None, 0.5), (0.5, None)])
def test_a_branch_may_take_an_average_up_or_leave_it(before, after, train, new_run, tiny_model):
    parent = train(run=new_run(), ema_decay=before, checkpoint_every=4, keep_last=9).run
    start = next(one for one in Checkpoints(parent.path / "checkpoints").all() if one.step == 8)
    branch = train(run=new_run(), ema_decay=after, parent=start, model=tiny_model(seed=5), max_steps=9).run
    plain = train(run=new_run(), checkpoint_every=9, keep_last=9).run
    states = [
        next(one for one in Checkpoints(run.path / "checkpoints").all() if one.step == 9).load()
        for run in (branch, plain)
    ]
    weights = states[0]["average"]["training_weights"] if after else states[0]["model"]
    # The step that the branch adds is made from the weights of training, whose gradient is not the average's.
    moments = [state["optimizer"]["state"][0]["exp_avg"] for state in states]
    assert torch.equal(moments[0], moments[1])
    assert ("average" in states[0]) == (after is not None)
    if after:  # d = 2/11 of the parent's weights, and the rest of the step's
        old = start.load()["model"]
        assert_close(states[0]["model"], {name: old[name] * 2 / 11 + one * 9 / 11 for name, one in weights.items()})
