"""A session's hours, by a clock that moves only when the test says so."""

import pytest
from pandas.testing import assert_frame_equal

from utils.core.checkpoints import Checkpoints
from utils.core.deadline import deadline
from utils.training.budget import Budget
from utils.training.fit import fit
from utils.training.objectives import next_token
from utils.training.saver import Saver


class Clock:
    """Seconds, moved on by a training pass (10), an evaluation's batch (5) and a checkpoint (20)."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        save = Saver.save

        def slow(saver, *args, **kwargs):
            self.now += 20
            save(saver, *args, **kwargs)

        monkeypatch.setattr(Saver, "save", slow)

    def __call__(self):
        return self.now

    def objective(self, model, batch, step):
        self.now += 10 if model.training else 5
        return next_token(model, batch, step)


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr("utils.training.session.Speed", Uncounted)
    return Clock(monkeypatch)


class Uncounted:
    """`Speed`, without its passes through the objective."""

    def __init__(self, *_):
        pass

    def add(self, *_):
        pass

    def take(self):
        return {"tokens_per_second": 1.0}


def test_spent_counts_the_longest_of_each_part_and_guesses_what_is_not_measured():
    times = [0.0]
    budget = Budget(100 / 3600, lambda: times[0])
    for part, seconds in (("step", 20), ("step", 10), ("checkpoint", 15)):
        with budget.timing(part):
            times[0] += seconds
    budget.guess("evaluation", 20)
    assert not budget.spent()  # 45 + 20 + 15 + 20 = 100
    assert budget.spent(1)
    with budget.timing("evaluation"):
        times[0] += 5
    assert not budget.spent(10)  # 50 + 20 + 15 + 5 = 90
    assert budget.spent(11)
    assert not Budget(None, lambda: times[0]).spent(1e9)


def test_a_deadline_around_it_counts_where_it_is_earlier():
    times = [0.0]
    with deadline(100 / 3600, clock=lambda: times[0]):
        within = Budget(None, lambda: times[0])
        assert Budget(50 / 3600, lambda: times[0]).spent(51)
        times[0] = 70.0
        late = Budget(50 / 3600, lambda: times[0])  # until 120, the deadline until 100
        assert late.spent(31)
        assert not late.spent(29)
    assert (within.limited, within.asked) == (True, pytest.approx(100 / 3600))
    assert within.spent(31)
    assert not within.spent(29)
    assert not Budget(None, lambda: times[0]).limited


@pytest.mark.parametrize(
    ("seconds", "stop", "used"),
    [
        # A checkpoint before the first step (20), then 10 a step; guessed for an evaluation 10, as a step's rows cost.
        # Another step, evaluation and checkpoint are 40, or 35 from the first evaluation (5) after step 5 on.
        (1, 1, 50),  # never less than a step (30) and its checkpoint
        (89, 3, 70),  # after step 2: 40 + 40 fits, after step 3: 50 + 40 does not
        (99, 4, 80),  # after step 4: 60 + 40
        # After step 5: 75, and a checkpoint is due (20) before another round: 75 + 20 + 35 = 130.
        (129, 5, 95),
        (130, 6, 125),  # step 6 ends at 105, and 105 + 35 = 140 would be too much
    ],
)
def test_session_stops_saved_before_its_time_is_over(seconds, stop, used, clock, new_run, data, settings, tiny_model):
    run, config = new_run(), settings(max_hours=seconds / 3600, eval_batches=1)
    result = fit(tiny_model(), clock.objective, data, run, config, clock=clock)
    assert clock.now - 1000 == used
    assert used <= max(seconds, 50)
    assert result.progress.step == stop
    assert not result.progress.finished
    assert str(result).startswith(f"stopped for train.max_hours {seconds / 3600:g} after {stop} steps")
    assert Checkpoints(run.path / "checkpoints").last().step == stop


def test_sessions_of_a_few_steps_equal_one_without_a_limit(clock, new_run, data, settings, tiny_model, caplog):
    whole, parts = new_run(), new_run()
    fit(tiny_model(dropout=0.2), clock.objective, data, whole, settings(), clock=clock)
    sessions = 0
    with caplog.at_level("INFO"):
        while True:
            sessions += 1
            config = settings(max_hours=(100 + sessions) / 3600)  # which may change
            result = fit(tiny_model(dropout=0.2), clock.objective, data, parts, config, clock=clock)
            if result.progress.finished:
                break
    assert sessions > 2
    assert "Stopped for train.max_hours" in caplog.text
    assert "Run the same again" in caplog.text
    traces = [run.metrics().drop(columns=["train/tokens_per_second"]) for run in (parts, whole)]
    assert_frame_equal(*traces, check_exact=True)
