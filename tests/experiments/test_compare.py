"""Comparison of runs: the numbers of the table, what differs, and what seeds allow one to say."""

import math
import random

import numpy
import pytest
from scipy import stats

from utils.core import jsonl
from utils.core.config import Config
from utils.core.run import Run, RunError
from utils.experiments.compare import REPORTING, beside, compare_runs
from utils.experiments.scores import direction, hours
from utils.experiments.significance import Difference, compare_groups, holm, spread
from utils.experiments.table import experiment_table


class Train(Config):
    lr: float = 0.1
    seed: int = 0
    trackers: tuple[str, ...] = ()


class Settings(Config):
    train: Train = Train()
    size: int | None = None


def made(root, curve, *, metric="validation/loss", size=None, **train):
    """A run whose `metric` takes the values of `curve` at steps 10, 20, ..."""
    run = Run.create(root, "run", Settings(train=Train(**train), size=size))
    run.begin_session(0)
    for place, value in enumerate(curve, 1):
        jsonl.append(run.metrics_file, {"step": 10 * place, "time": 0.0, metric: value})
    return run


def test_the_table_gives_the_best_and_the_last_value_of_each_run_the_best_run_first(tmp_path):
    worse = made(tmp_path, [3.0, 2.0, math.nan, 2.5], lr=0.1)
    better = made(tmp_path, [3.0, 1.0, 1.0, 4.0], lr=0.2)
    table = compare_runs([worse, better.path]).table
    assert table["run"].tolist() == [better.path.name, worse.path.name]
    assert table["best"].tolist() == [1.0, 2.0]
    assert table["at step"].tolist() == [20, 20]  # the earlier of two equal bests
    assert table["last"].tolist() == [4.0, 2.5]
    assert table["last step"].tolist() == [40, 40]


def test_where_higher_is_better_the_highest_is_the_best(tmp_path):
    runs = [
        made(tmp_path, curve, metric="validation/pass@1", lr=lr) for curve, lr in (([0.1, 0.4], 1), ([0.5, 0.3], 2))
    ]
    found = compare_runs(runs, "validation/pass@1")
    assert found.table["best"].tolist() == [0.5, 0.4]
    assert compare_runs(runs, "validation/pass@1", better="lower").table["best"].tolist() == [0.1, 0.3]


def test_a_run_is_laid_beside_the_best_runs_of_the_same_data(tmp_path):
    class Task(Config):
        train: Train = Train()
        data: str = "a"

    def of(data, value, lr):
        run = Run.create(tmp_path, "run", Task(train=Train(lr=lr), data=data))
        if value:
            jsonl.append(run.metrics_file, {"step": 10, "time": 0.0, "validation/loss": value})
        return run

    own = of("a", 3.0, 0.1)
    others = [of("a", value, lr) for value, lr in ((2.0, 0.2), (4.0, 0.3), (1.0, 0.4))]
    of("b", 0.5, 0.1)  # other data
    of("a", None, 0.5)  # not evaluated
    found = beside(own, most=3)
    assert [one.run.path for one in found.entries] == [own.path, others[2].path, others[0].path]
    assert [one.run.path for one in beside(own).entries][3:] == [others[1].path]

    waiting = of("a", None, 0.6)  # what is asked about may itself be the one that is not evaluated
    found = beside(waiting, most=3)
    assert [one.run.path for one in found.entries] == [others[2].path, others[0].path]
    assert f"{waiting.path.name} has no validation/loss yet" in str(found)
    alone = of("c", None, 0.1)
    assert "Nor has any run beside it." in str(beside(alone))


def test_runs_of_other_tasks_or_data_are_not_subtracted_and_stand_apart(tmp_path):
    class Task(Config):
        train: Train = Train()
        task: str = "causal_lm"

    def of(task, value, seed):
        run = Run.create(tmp_path, task, Task(train=Train(seed=seed), task=task))
        jsonl.append(run.metrics_file, {"step": 10, "time": 0.0, "validation/loss": value})
        return run

    runs = [of("causal_lm", 2.0, 1), of("classifier", 0.5, 1), of("causal_lm", 1.0, 2), of("classifier", 0.4, 2)]
    found = compare_runs(runs)
    assert found.differences == []
    assert "Different tasks or data (A | B: task): their validation/loss is not comparable" in str(found)
    order = [runs[2], runs[0], runs[3], runs[1]]  # the best first within each
    assert found.table["run"].tolist() == [run.path.name for run in order]
    assert "Different tasks" not in str(compare_runs([runs[0], runs[2]]))
    table = experiment_table(tmp_path, sort="validation/loss").table
    assert table["run"].tolist() == [run.path.name for run in (*order[2:], *order[:2])]  # the newest kind first
    assert table["task and data"].tolist() == ["classifier"] * 2 + ["causal_lm"] * 2


def test_a_run_alone_is_compared_with_nothing(tmp_path):
    run = made(tmp_path, [1.0])
    assert str(beside(run)) == "No other run on this data yet."
    assert "configs" not in str(compare_runs([run]))


def test_what_a_session_may_change_makes_no_other_group_but_for_the_precision():
    from utils.rl.config import PPOConfig
    from utils.training.config import TrainConfig

    free = {
        *(set(TrainConfig.model_fields) - set(TrainConfig(max_steps=1, warmup_steps=0).arithmetic())),
        *(set(PPOConfig.model_fields) - set(PPOConfig(schedule="cosine").arithmetic())),
    }
    assert {"compile", "local_checkpoints", "micro_batch_prompts"} < free
    assert free - REPORTING == {"precision"}


@pytest.mark.parametrize(
    ("metric", "way"),
    [
        ("train/policy_loss", "lower"),
        ("validation/bits_per_byte", "lower"),
        ("validation/accuracy", "higher"),
        ("validation/level2/pass@1", "higher"),
        ("train/tokens_per_second", "higher"),
    ],
)
def test_the_name_of_a_metric_says_which_way_is_better(metric, way):
    assert direction(metric) == way


def test_a_metric_whose_name_does_not_say_which_way_is_better_is_asked_about():
    with pytest.raises(RunError, match='train/lr.*better="lower"'):
        direction("train/lr")


def test_only_the_settings_that_differ_are_shown(tmp_path):
    runs = [made(tmp_path, [1.0], lr=0.1, seed=3), made(tmp_path, [1.0], lr=0.2, seed=3, size=7)]
    configs = compare_runs(runs).configs
    assert configs.to_dict("split") == {
        "index": ["train.lr", "size"],
        "columns": [run.path.name for run in runs],
        "data": [["0.1", "0.2"], ["None", "7"]],
    }


def test_runs_that_differ_in_seeds_and_reporting_are_one_group(tmp_path):
    alike = [made(tmp_path, [value], seed=seed) for seed, value in enumerate((1.0, 3.0))]
    alike.append(made(tmp_path, [5.0], seed=2, trackers=("tensorboard",)))
    other = made(tmp_path, [7.0], lr=0.5)
    found = compare_runs([*alike, other])
    assert found.groups["group"].tolist() == ["A", "B"]
    assert found.groups["seeds"].tolist() == [3, 1]
    assert found.groups["mean best"].tolist() == [3.0, 7.0]
    assert found.groups["std"].tolist()[0] == 2.0  # of 1, 3, 5 by n - 1: sqrt((4 + 0 + 4) / 2)
    assert math.isnan(found.groups["std"].tolist()[1])


def test_a_seed_that_was_run_twice_counts_once(tmp_path):
    runs = [made(tmp_path, [value], seed=seed) for value, seed in ((1.0, 0), (9.0, 0), (2.0, 1))]
    found = compare_runs(runs)
    assert found.groups["seeds"].tolist() == [2]
    assert found.groups["mean best"].tolist() == [5.5]  # of 9, the newest with seed 0, and 2
    assert found.notes == ["2 runs of group A have the same seed (0): the newest counts."]


def test_with_one_seed_each_nothing_is_stated(tmp_path):
    found = compare_runs([made(tmp_path, [1.0], lr=0.1), made(tmp_path, [3.0], lr=0.2)])
    (difference,) = found.differences
    assert difference.p is None
    assert difference.mean == 2.0
    assert "one seed each: no statement" in str(found)
    assert "p =" not in str(found)


def test_with_one_seed_on_one_side_nothing_is_stated():
    found = compare_groups(("A", "B"), [1.0, 2.0], [3.0])
    assert found.p is None
    assert str(found) == "B against A: +1.5 (n = 2 and 1 seeds). one seed in B: no statement."


def test_seeds_without_any_spread_state_nothing():
    assert compare_groups(("A", "B"), [1.0, 1.0], [2.0, 2.0]).p is None


def test_welchs_test_is_that_of_the_closed_form():
    # a = 1, 3 and b = 4, 6: means 2 and 5, variances 2 and 2, so t = 3 / sqrt(2/2 + 2/2) = 3 / sqrt(2), and Welch's
    # degrees of freedom are (1 + 1)^2 / (1 + 1) = 2, for which P(|T| > t) = 1 - t / sqrt(2 + t^2) in closed form. The
    # 97.5% quantile of that distribution is q with q / sqrt(2 + q^2) = 0.95: q = 0.95 sqrt(2 / (1 - 0.95^2)).
    found = compare_groups(("A", "B"), [1.0, 3.0], [4.0, 6.0])
    t, q = 3 / math.sqrt(2), 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert found.mean == 3.0
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert found.welch == pytest.approx((3 - q * math.sqrt(2), 3 + q * math.sqrt(2)))
    assert "n = 2 and 2 seeds" in str(found)
    assert "no more than their seeds may explain" in str(found)


def test_the_bootstrap_interval_is_that_of_scipy_up_to_its_noise():
    a, b = [1.0, 2.0, 4.0, 4.5, 7.0], [3.0, 5.0, 5.5, 8.0]
    found = compare_groups(("A", "B"), a, b)
    theirs = stats.bootstrap(
        (b, a), lambda x, y, axis: numpy.mean(x, axis) - numpy.mean(y, axis), method="percentile", rng=1
    ).confidence_interval
    assert found.bootstrap == pytest.approx((theirs.low, theirs.high), abs=0.2)  # their spread is 1.4
    assert found.bootstrap == compare_groups(("A", "B"), a, b).bootstrap


def test_random_groups_of_one_distribution_differ_as_often_as_the_level_says():
    draws = random.Random(0)
    samples = [[draws.gauss(0, 1) for _ in range(8)] for _ in range(600)]
    found = [compare_groups(("A", "B"), a, b).p < 0.05 for a, b in zip(samples[::2], samples[1::2])]
    # 300 draws of 5%: 15 expected, standard deviation 3.8
    assert 4 <= sum(found) <= 27


def test_several_pairs_are_corrected_together():
    # Holm: the sorted p 0.01, 0.02, 0.03 times 3, 2, 1 are 0.03, 0.04, 0.03; none may be below the one before it.
    pairs = [
        Difference(("A", name), (5, 5), 1.0, p, (0, 1), (0, 1)) for name, p in (("B", 0.02), ("C", 0.03), ("D", 0.01))
    ]
    silent = Difference(("A", "E"), (1, 1), 1.0)
    found = holm([*pairs, silent])
    assert [one.p for one in found[:3]] == pytest.approx([0.04, 0.04, 0.03])
    assert [one.pairs for one in found[:3]] == [3, 3, 3]
    assert found[3] == silent


def test_spread_of_one_value_is_unknown():
    assert math.isnan(spread([1.0]))


def test_hours_are_those_of_the_sessions_and_not_of_the_night_between(tmp_path):
    run = made(tmp_path, [])
    stamp = run.stamp
    stamp["sessions"] = [{"started": f"2026-01-0{day}T00:00:00+00:00", "from_step": 0} for day in (1, 2)]
    run._write_stamp(stamp)
    begun = 1767225600.0  # 2026-01-01T00:00:00Z
    for step, time in enumerate((begun + 1800, begun + 3600, begun + 86400 + 900)):
        jsonl.append(run.metrics_file, {"step": step, "time": time})
    assert hours(run) == 1.25


def test_the_figure_draws_every_curve_of_a_group_in_its_colour(tmp_path):
    runs = [made(tmp_path, [1.0, 2.0], seed=0), made(tmp_path, [1.0, 3.0], seed=1), made(tmp_path, [5.0, 4.0], lr=1)]
    (ax,) = compare_runs(runs).figure.axes
    curves = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    assert [list(line.get_ydata()) for line in curves] == [[1, 2], [1, 3], [5, 4]]
    assert curves[0].get_color() == curves[1].get_color() != curves[2].get_color()
    best = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.get_lines() if len(line.get_xdata()) == 1]
    assert best == [(10, 1.0), (10, 1.0), (20, 4.0)]


def test_it_shows_itself_as_text_and_as_a_page_that_escapes_what_the_configs_hold(tmp_path):
    class Named(Config):
        name: str

    runs = []
    for name in ("<b>bold</b>", "plain"):
        runs.append(Run.create(tmp_path, "run", Named(name=name)))
        jsonl.append(runs[-1].metrics_file, {"step": 1, "time": 0.0, "validation/loss": 1.0})
    found = compare_runs(runs)
    assert runs[0].path.name in str(found)
    page = found._repr_html_()
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "data:image/png" in page


def test_a_run_without_the_metric_and_a_folder_without_a_run_are_named(tmp_path):
    run = made(tmp_path, [0.5], metric="validation/pass@1")
    with pytest.raises(RunError, match=f"{run.path.name} has no validation/loss; .*validation/pass@1"):
        compare_runs([run])
    with pytest.raises(RunError, match="No run at"):
        compare_runs([tmp_path])
    with pytest.raises(RunError, match="at least one"):
        compare_runs([])
