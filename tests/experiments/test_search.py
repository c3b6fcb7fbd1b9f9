"""A search varies every setting, records what fails, prunes, and outlives its processes."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from utils.core.config import Config, ConfigError
from utils.core.deadline import AskedToStop, OutOfTime, deadline
from utils.experiments.search import Pruned, SearchConfig, search
from utils.experiments.search_study import SearchError, make_pruner, make_sampler

CHILD = Path(__file__).with_name("search_child.py")
ROOT = Path(__file__).parents[2]
SPACE = {
    "train.lr": {"log": [1e-4, 1e-1]},
    "model.width": {"int": [16, 64], "step": 16},
    "train.schedule": ["cosine", "linear"],
    "train.floor": {"float": [0, 1], "when": {"train.schedule": "cosine"}},
}


def settings(**changes):
    return SearchConfig(**{"trials": 4, "pruner": "none", "space": SPACE, **changes})


def score(config, watch=None):
    return {"loss": config.train.lr + config.model.width / 100, "note": "kept"}


def child(root, *arguments):
    return subprocess.Popen([sys.executable, CHILD, root, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_every_setting_varies_and_nothing_else_does(base, tmp_path):
    seen = []
    found = search(base, settings(trials=8), lambda config, watch: seen.append(config) or score(config), tmp_path)
    assert found.table.index.tolist() == list(range(8))
    assert all(found.table[key].nunique() > 1 for key in SPACE)
    for config in seen:
        same = {"lr": config.train.lr, "schedule": config.train.schedule, "floor": config.train.floor}
        assert config == base.replace(train=same, model={"width": config.model.width})
        assert config.train.schedule == "cosine" or config.train.floor == base.train.floor
    assert found.table["note"].tolist() == ["kept"] * 8


def test_the_best_is_the_lowest_or_the_highest_and_its_config_is_a_file_that_loads(base, tmp_path):
    for direction, extreme in (("minimize", min), ("maximize", max)):
        seen = []
        found = search(
            base,
            settings(direction=direction, name=direction),
            lambda config, watch, seen=seen: seen.append(config) or score(config),
            tmp_path,
        )
        best = extreme(seen, key=lambda config: score(config)["loss"])
        assert found.best_config == type(base).load(tmp_path / direction / "best.yaml") == best
        assert found.best.value == pytest.approx(score(best)["loss"])
        assert str(found).endswith(f"Its recipe: {tmp_path / direction / 'best.yaml'}")
        assert f"Trial {seen.index(best)} of the search {direction}" in (tmp_path / direction / "best.yaml").read_text()


def test_draws_are_a_function_of_the_seed_and_the_trials_number(base, tmp_path):
    def table(name, *sizes, **changes):
        for trials in sizes:
            found = search(base, settings(name=name, trials=trials, **changes), score, tmp_path)
        return found.table[list(SPACE)]

    whole, parts, other = table("whole", 4), table("parts", 1, 2, 4), table("other", 2, seed=1)
    assert whole.equals(parts)  # stopped twice and gone on with: as never having stopped
    assert not set(whole["train.lr"]) & set(other["train.lr"])
    assert whole["train.lr"].nunique() == 4


def test_a_failed_trial_is_recorded_with_its_reason_and_stops_no_other(base, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SOME_API_KEY", "s3cret-of-the-test")
    outcomes = iter([{"loss": 1.0}, ValueError("bad s3cret-of-the-test"), {"loss": float("nan")}, {"loss": 2.0}])

    def run_one(config, watch):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with caplog.at_level(logging.WARNING):
        found = search(base, settings(), run_one, tmp_path)
    assert found.table["state"].tolist() == ["complete", "fail", "fail", "complete"]
    assert found.table["error"].tolist()[1:3] == [
        "ValueError: bad ***",
        "ArithmeticError: loss is nan at the end of the trial",
    ]
    assert found.study.trials[1].state == TrialState.FAIL
    assert found.best.number == 0
    assert b"s3cret" not in (tmp_path / "search" / "study.db").read_bytes()
    assert "s3cret" not in caplog.text + found._repr_html_()


def test_combinations_that_the_config_refuses_are_failed_trials(base, tmp_path):
    found = search(base, settings(trials=5, space={"model.heads": [3, 4]}), score, tmp_path)
    refused = found.table[found.table["model.heads"] == 3]
    assert 0 < len(refused) < 5
    assert (refused["error"].str.contains("width 32 is not a multiple of heads 3")).all()
    assert (found.table[found.table["model.heads"] == 4]["state"] == "complete").all()


def test_no_best_is_made_up_where_every_trial_failed(base, tmp_path):
    def run_one(config, watch):
        raise ValueError("always")

    found = search(base, settings(trials=2), run_one, tmp_path)
    with pytest.raises(
        SearchError, match=r"No trial .* is complete yet \(2 begun\); the last failure: ValueError: alw"
    ):
        found.save_best(tmp_path / "best.yaml")
    assert not list(tmp_path.glob("**/best.yaml"))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trials_that_fall_behind_are_stopped_early_and_the_others_are_not(base, tmp_path, pruner):
    """Trial n reports n at each step: after the first, each is worse than all before it."""
    reports = []

    def run_one(config, watch):
        number = len(reports)
        reports.append(0)
        for step in range(1, 10):
            reports[-1] = step
            watch(step, {"loss": float(number), "other": 0.0})
        return {"loss": float(number)}

    found = search(base, settings(trials=6, pruner=pruner, startup_trials=1, min_steps=2), run_one, tmp_path)
    states = found.table["state"].tolist()
    assert states[0] == "complete"
    assert "pruned" in states
    assert set(states) <= {"complete", "pruned"}
    assert all((steps < 9) == (state == "pruned") for steps, state in zip(reports, states))
    assert found.table["steps"].tolist() == reports
    assert found.best.value == 0
    if pruner == "median":  # worse than the median of the earlier ones from the first, but not judged before min_steps
        assert states[1:] == ["pruned"] * 5
        assert reports[1:] == [2] * 5


def test_nothing_is_stopped_early_without_a_pruner(base, tmp_path):
    def run_one(config, watch):
        for step in range(3):
            watch(step, {"loss": 100.0 if watch.name != "search-000" else 0.0})
        return {"loss": 1.0}

    assert (search(base, settings(), run_one, tmp_path).table["state"] == "complete").all()


def test_a_study_killed_in_a_trial_goes_on_with_the_next_number_and_tries_that_trial_again(tmp_path):
    process = child(tmp_path, "5", "hang")
    while not (tmp_path / "hanging").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = child(tmp_path, "5")
    assert "5 complete, 1 fail" in again.communicate()[0]
    table = _open(tmp_path, 5).table
    assert table.index.tolist() == list(range(6))  # five trials, of which number 2 took two tries
    assert table["state"].tolist() == ["complete"] * 2 + ["fail"] + ["complete"] * 3
    assert table["error"][2] == "its process ended before the trial did"
    assert table["x"][3] == table["x"][2] == float((tmp_path / "hanging").read_text())
    assert table["again"].tolist()[3] == 2
    assert table["x"].nunique() == 5


def test_two_processes_share_one_study(tmp_path):
    processes = [child(tmp_path, "6", "slow") for _ in range(2)]
    output = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], output
    found = _open(tmp_path, 6)
    assert len(found.table) in (6, 7)  # both may begin a last one
    assert (found.table["state"] == "complete").all()
    assert found.table["x"].nunique() == len(found.table)
    assert len({trial.user_attrs["process"]["pid"] for trial in found.study.trials}) == 2


def _open(root, trials):
    """The study that the processes left, with nothing to add to it."""
    config = SearchConfig(trials=trials, pruner="none", space={"x": {"float": [-1, 1]}})

    class Point(Config):
        """As in the child."""

        x: float = 0.0
        """where"""

    def run_one(config, watch):
        raise AssertionError("no trial is left to run")

    return search(Point(), config, run_one, root)


def test_an_interrupted_trial_is_tried_again_by_the_next_session(base, tmp_path):
    seen = []

    def run_one(config, watch):
        seen.append((watch.name, config.train.lr))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return score(config)

    with pytest.raises(KeyboardInterrupt):
        search(base, settings(trials=3), run_one, tmp_path)
    found = search(base, settings(trials=3), run_one, tmp_path)
    assert seen[2] == seen[1]  # the same name and settings, so that it takes up the same run
    assert [name for name, _ in seen] == ["search-000", "search-001", "search-001", "search-003"]
    assert found.table["state"].tolist() == ["complete", "fail", "complete", "complete"]


def test_a_study_is_not_gone_on_with_under_another_config_space_or_metric(base, tmp_path):
    search(base, settings(trials=1), score, tmp_path)
    for changed, what in (
        ({"space": {"train.lr": {"log": [1e-3, 1e-1]}}}, "space"),
        ({"metric": "note"}, "metric"),
    ):
        with pytest.raises(SearchError, match=f"was made with another {what}"):
            search(base, settings(trials=2, **changed), score, tmp_path)
    with pytest.raises(SearchError, match="another base config.*--name.*--root"):
        search(base.replace(train={"steps": 99}), settings(trials=2), score, tmp_path)
    assert len(search(base, settings(trials=2), score, tmp_path).table) == 2


def test_a_metric_that_no_trial_gives_stops_the_search_at_once(base, tmp_path):
    runs = []
    with pytest.raises(SearchError, match="judges by 'accuracy', and the trial gives loss, note"):
        search(base, settings(metric="accuracy"), lambda config, watch: runs.append(1) or score(config), tmp_path)
    assert len(runs) == 1


def test_a_database_url_that_cannot_be_opened_is_told_without_its_password(base, tmp_path):
    url = "sqlite:////nowhere/pass-w0rd/study.db"
    with pytest.raises(SearchError, match="No study could be opened in the database of the given URL") as caught:
        search(base, settings(), score, tmp_path, storage=url)
    assert "pass-w0rd" not in str(caught.value)


def test_a_study_may_live_in_a_database_of_its_own(base, tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    search(base, settings(trials=2), score, tmp_path / "one", storage=url)
    found = search(base, settings(trials=3), score, tmp_path / "two", storage=url)
    assert found.table.index.tolist() == [0, 1, 2]
    assert not (tmp_path / "two" / "search" / "study.db").exists()


def test_a_space_that_does_not_fit_makes_no_study(base, tmp_path):
    with pytest.raises(ConfigError, match="unknown setting"):
        search(base, settings(space={"nowhere": [1, 2]}), score, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["median", "hyperband", "none"])
def test_each_pruner_and_sampler_is_the_one_named(name):
    kinds = {"median": "MedianPruner", "hyperband": "HyperbandPruner", "none": "NopPruner"}
    assert type(make_pruner(settings(pruner=name))).__name__ == kinds[name]
    assert type(make_sampler(settings(sampler="random"), 0)).__name__ == "RandomSampler"
    assert type(make_sampler(settings(), 0)).__name__ == "TPESampler"


def test_what_a_pruned_trial_raises_through_its_run_is_a_wish_to_stop(base, tmp_path):
    ended = []

    def run_one(config, watch):
        try:
            watch(1, {"loss": float(len(ended))})
        except Exception as error:
            ended.append(error)
            raise
        ended.append(None)
        return {"loss": float(len(ended))}

    found = search(base, settings(pruner="median", startup_trials=1), run_one, tmp_path)
    assert found.table["state"].tolist() == ["complete"] + ["pruned"] * 3
    assert [type(error) for error in ended[1:]] == [Pruned] * 3
    assert issubclass(Pruned, AskedToStop)


def test_a_trial_that_runs_out_of_time_ends_the_session_and_is_gone_on_with_however_often(base, tmp_path):
    seen = []

    def run_one(config, watch):
        seen.append((watch.name, config.train.lr))
        if 2 <= len(seen) <= 9:
            raise OutOfTime("stopped for train.max_hours 1 after 3 steps")
        return score(config)

    for session in range(8):  # more than the tries of a trial whose process dies
        found = search(base, settings(trials=3), run_one, tmp_path)
        assert len(seen) == 2 + session
        assert "stopped for train.max_hours 1 after 3 steps" in str(found)
        assert found.table["state"].tolist()[-1] == "waiting"
    found = search(base, settings(trials=3), run_one, tmp_path)
    assert len(set(seen[1:10])) == 1  # one name and one draw, so that it takes up the same run
    assert (found.table["state"] == "complete").sum() == 3
    assert "stopped" not in str(found)


def test_no_trial_is_begun_after_the_deadline(base, tmp_path):
    clock = [0.0]

    def run_one(config, watch):
        clock[0] += 1000
        return score(config)

    with deadline(0.5, clock=lambda: clock[0]):  # 1,800 seconds: two trials
        found = search(base, settings(trials=4), run_one, tmp_path)
    assert found.table["state"].tolist() == ["complete"] * 2
    assert "0.5 hours (max_hours) are over" in str(found)
    assert len(search(base, settings(trials=4), run_one, tmp_path).table) == 4
