"""What is said while PPO trains is the last evaluation; curves are drawn where they can be seen."""

import pytest

from utils.core import jsonl
from utils.core.run import Run
from utils.rl import live
from utils.rl.config import PPOConfig
from utils.rl.live import live_learning, standing


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path, "names", PPOConfig())


def log(run, step, **values):
    jsonl.append(run.metrics_file, {"step": step, **{name.replace("__", "/"): one for name, one in values.items()}})


def test_before_the_first_evaluation_there_is_no_rate(run):
    assert standing(run) == "not evaluated yet"
    log(run, 1, train__kl=0.1)
    assert standing(run) == "not evaluated yet"


def test_the_last_evaluation_counts_whatever_is_logged_after_it(run):
    log(run, 0, **{"validation/pass@1": 0.1, "validation/greedy": 0.2})
    log(run, 3, **{"validation/pass@1": 0.2134, "validation/greedy": 0.24})
    log(run, 4, train__kl=0.1)
    assert standing(run) == "validation: pass@1 21.3%, greedy 24.0%"


def test_outside_a_notebook_live_curves_are_that_line_and_nothing_is_drawn(run, monkeypatch):
    monkeypatch.setattr(live, "plot_learning", lambda run: pytest.fail("drawn for nobody"))
    log(run, 2, **{"validation/pass@1": 0.5, "validation/greedy": 1.0})
    assert live_learning(run)(2) == "validation: pass@1 50.0%, greedy 100.0%"


def test_in_a_notebook_the_curves_of_the_run_are_drawn_anew_each_time(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(live, "redrawing", lambda draw: lambda: drawn.append(draw()))
    watch = live_learning(run)
    assert drawn == []  # the run has nothing to draw before the first update
    for update, rate in ((2, 0.25), (4, 0.5)):
        log(run, update, **{"validation/pass@1": rate, "validation/greedy": rate})
        assert watch(update) == f"validation: pass@1 {rate:.1%}, greedy {rate:.1%}"
    curves = [[line.get_ydata().tolist() for line in figure.axes[0].lines] for figure in drawn]
    assert [25.0] in curves[0]
    assert [25.0, 50.0] in curves[1]


def test_the_line_of_a_trained_run_is_of_its_last_evaluation(ppo_trained):
    last = ppo_trained.run.metrics().loc[ppo_trained.recipe.ppo.updates]
    assert standing(ppo_trained.run) == (
        f"validation: pass@1 {last['validation/pass@1']:.1%}, greedy {last['validation/greedy']:.1%}"
    )
