"""What a session tells its trackers: checkpoints, data, gradients, samples, and why it ended."""

import math
import re
import signal

import pytest
import torch

from utils.core import jsonl
from utils.core.checkpoints import Checkpoints
from utils.core.trackers import Tracker
from utils.core.tracking import TRACKERS, AskedToStop
from utils.training.fit import NonFiniteError, fit
from utils.training.objectives import next_token


class Taking(Tracker):
    """Keeps what it is told."""

    gradients_every = 5
    made: list["Taking"] = []

    def __init__(self, run):
        self.told = []
        self.made.append(self)

    def _of(self, kind):
        return [args for name, args in self.told if name == kind]


for name in ("log", "sample", "gradients", "checkpoint", "uses", "alert", "close"):
    setattr(Taking, name, lambda self, *args, name=name: self.told.append((name, args)))


@pytest.fixture
def tracker(monkeypatch):
    """The one of the last session."""
    monkeypatch.setitem(TRACKERS, "wandb", Taking)
    monkeypatch.setattr(Taking, "made", [])
    return lambda: Taking.made[-1]


def test_every_checkpoint_that_was_written_is_told_but_that_of_untrained_weights(train, tracker, new_run):
    run = new_run()
    train(run=run, trackers=("wandb",), checkpoint_every=3)
    told = [one for (one,) in tracker()._of("checkpoint")]
    assert [one.step for one in told] == [3, 5, 6, 9, 10]  # 5 and 10 are evaluations that improve
    kept = {one.step: one for one in Checkpoints(run.path / "checkpoints").all()}
    assert all(kept[one.step] == one for one in told if one.step in kept)


def test_the_data_are_told_with_their_source_sizes_and_folder(train, tracker, data):
    train(trackers=("wandb",))
    ((fingerprint, facts, folder),) = tracker()._of("uses")
    assert (fingerprint, folder) == (data.fingerprint, data.folder)
    assert facts["source"] == data.metadata["source"]
    assert facts["splits"]["train"]["characters"] == 400
    assert facts["targets"]["validation"] == data.validation.targets


def test_gradients_have_the_models_own_names(train, tracker, tiny_model):
    model = tiny_model()
    train(model, trackers=("wandb",))
    ((five, histograms), (ten, _)) = tracker()._of("gradients")
    assert (five, ten) == (5, 10)
    assert set(histograms) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, [4, 8, 10]), (0, []), (3, [3, 6, 9, 10])],  # evaluations after steps 4, 8 and the last
)
def test_samples_are_printed_with_each_evaluation_or_at_steps_of_their_own_or_never(every, steps, train):
    seen = []
    train(sample=lambda model, step: seen.append(step) or "text", eval_every=4, sample_every=every)
    assert seen == steps


def test_a_loss_that_is_no_number_is_an_alert_of_its_step_and_again_where_it_comes_again(train, tracker, new_run):
    run = new_run()

    def objective(model, batch, step):
        values = next_token(model, batch, step)
        return values | {"loss": values["loss"] * math.nan} if model.training and step == 7 else values

    for _ in range(2):
        with pytest.raises(NonFiniteError):
            train(run=run, objective=objective, trackers=("wandb",), checkpoint_every=6)
        nan, end = [one for (one,) in tracker()._of("alert")]
        assert (nan.kind, nan.step, nan.level, end.kind, end.level) == ("nan", 8, "ERROR", "end", "ERROR")
        assert "before step 8" in nan.text
    assert [event["kind"] for event in jsonl.read(run.path / "events.jsonl")] == ["nan", "end"]


def test_an_interrupted_session_ends_at_the_step_that_was_saved_whether_or_not_it_was_logged(new_run, train):
    run = new_run()

    def objective(model, batch, step):
        if step == 6:  # the seventh
            signal.raise_signal(signal.SIGINT)
        return next_token(model, batch, step)

    with pytest.raises(KeyboardInterrupt):
        train(run=run, objective=objective, log_every=5)
    assert Checkpoints(run.path / "checkpoints").last().step == 7
    assert run.metrics().index[-1] == 5
    (end,) = jsonl.read(run.path / "events.jsonl")
    assert (end["step"], end["text"]) == (7, f"{run.path.name}: interrupted, at step 7.")


def test_the_bar_ends_with_the_best_of_all_evaluations(train, capsys):
    result = train(eval_every=10)
    *_, last = (line for line in re.split("[\r\n]", capsys.readouterr().out) if "10/10" in line)
    assert result.progress.best_step == 10
    assert f"best val {result.progress.best:.3f}" in last


def test_a_session_that_was_asked_to_stop_has_not_failed(tracker, new_run, tiny_model, data, settings):
    def enough(step, metrics):
        raise AskedToStop(f"enough after {step}")

    with pytest.raises(AskedToStop):
        fit(tiny_model(), next_token, data, new_run(), settings(trackers=("wandb",)), on_evaluation=enough)
    assert tracker()._of("close") == [("enough after 5", False)]
    assert [one.level for (one,) in tracker()._of("alert")] == ["INFO"]


def test_an_optimiser_without_room_for_its_moments_says_what_it_takes(train, tiny_model, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    from utils.training.memory import OutOfMemory

    model = tiny_model()
    numbers = sum(one.numel() for one in model.parameters())
    monkeypatch.setattr(torch.optim.AdamW, "step", refuse)
    with pytest.raises(
        OutOfMemory, match=rf"update after step 0: CUDA out of memory.*{numbers:,} parameters"
    ) as caught:
        train(model)
    assert caught.value.__cause__ is None
