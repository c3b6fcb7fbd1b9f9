"""Studies of a recipe: their runs are its variations, and their numbers those of the runs."""

import functools
from dataclasses import replace
from datetime import datetime, timedelta

import numpy
import pandas
import pytest
from scipy import stats

from utils.core.checkpoints import Checkpoints
from utils.core.config import ConfigError
from utils.core.deadline import deadline
from utils.core.repro import weights_hash
from utils.core.run import Run
from utils.data.loaders import prepare
from utils.experiments.search import SearchConfig, search
from utils.training.evaluate import evaluate
from utils.training.many import train_many
from utils.training.objectives import next_token
from utils.training.recipes import Recipe, build_model, load_recipe, start_run, train
from utils.training.runs import CONFIGS, train_model
from utils.training.step import Stepper
from utils.training.studies import (
    cross_validate,
    learning_curve,
    load_search,
    search_recipe,
    searched,
    seed_variance,
    summarise,
    summary_text,
    trial,
)


@pytest.fixture
def recipe(data):
    """The smallest recipe, on the tiny corpus."""
    changes = {"max_steps": 4, "batch_size": 6, "warmup_steps": 2, "eval_every": 2, "sample_every": 1, "log_every": 1}
    return load_recipe("minimal_test").replace(
        data={"corpus": data.metadata["source"], "block_size": 8},
        model={"width": 16},
        train={**changes, "device": "cpu", "trackers": ()},
        sample={"max_new_tokens": 1},
    )


def test_seed_variance_is_that_of_the_runs_and_a_second_call_trains_nothing(recipe, tmp_path):
    table, summary = seed_variance(recipe, tmp_path, [1, 2, 3])
    losses = [Run.open(path).metrics()["validation/loss"].min() for path in table["run"]]
    assert table["loss"].tolist() == losses
    assert len(set(losses)) == 3
    row = summary.loc["loss"]
    assert (row["runs"], row["mean"], row["sd"]) == pytest.approx((3, numpy.mean(losses), numpy.std(losses, ddof=1)))
    again, _ = seed_variance(recipe, tmp_path, [1, 2, 3, 4])
    assert again["run"].tolist()[:3] == table["run"].tolist()
    assert len(Run.all(tmp_path)) == 4


def test_the_interval_is_students():
    """Of 2, 4, 9: mean 5, sd sqrt((9 + 1 + 16) / 2); t(0.975, 2) = 4.3027 (tables); half is sd * t / sqrt(3)."""
    table = pandas.DataFrame({"seed": [0, 1, 2, 3], "loss": [2.0, 4.0, 9.0, 77.0], "error": ["", "", "", "ValueError"]})
    row = summarise(table, {"seed"}).loc["loss"]
    assert (row["runs"], row["mean"], row["sd"]) == pytest.approx((3, 5, 13**0.5))
    half = 13**0.5 * 4.3027 / 3**0.5
    assert (row["low"], row["high"]) == pytest.approx((5 - half, 5 + half), rel=1e-4)
    low, high = stats.t.interval(0.95, 2, 5, stats.sem([2, 4, 9]))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    assert list(summarise(table, {"seed"}).index) == ["loss"]
    assert numpy.isnan(summarise(table[:1], {"seed"}).loc["loss", "low"])


def test_the_interval_of_a_share_stays_within_0_and_1_and_two_runs_are_told_to_be_too_few():
    """Half of it is t(1) sd / sqrt(2), with t(0.975, 1) = 12.7062 (tables) and sd = 0.1414 / sqrt(2): 0.898."""
    table = pandas.DataFrame({"seed": [0, 1], "accuracy": [0.7, 0.8414], "loss": [0.7, 0.8414], "error": ["", ""]})
    found = summarise(table, {"seed"})
    assert found.loc["accuracy", ["low", "high"]].tolist() == [0.0, 1.0]
    half = 12.7062 * 0.1414 / 2
    assert found.loc["loss", ["low", "high"]].tolist() == pytest.approx([0.7707 - half, 0.7707 + half], rel=1e-4)
    told = summary_text(found)
    assert told.startswith("Mean, standard deviation and the 95% interval of the mean (t):")
    assert "2 runs are too few" in told
    more = pandas.concat([table, table.assign(seed=[2, 3])])
    assert "too few" not in summary_text(summarise(more, {"seed"}))


def test_cross_validation_judges_each_part_by_a_model_that_never_saw_it(recipe, data, tmp_path):
    table, summary = cross_validate(recipe, tmp_path, 3)
    assert (table["error"] == "").all()
    assert table["fold"].tolist() == [1, 2, 3]
    used = [Recipe.load(Run.open(path).path / "config.yaml") for path in table["run"]]
    prepared = [prepare(one.data, tmp_path / "data") for one in used]
    assert sum(one.metadata["splits"]["validation"]["characters"] for one in prepared) == 475  # 500 less a test 5%
    assert summary.loc["loss", "runs"] == 3
    assert not [name for name in table if name.startswith("data.")]
    assert cross_validate(recipe, tmp_path, 3)[0]["run"].tolist() == table["run"].tolist()


def test_a_learning_curve_is_judged_on_one_split_whatever_the_share(recipe, tmp_path):
    table = learning_curve(recipe, tmp_path, [1.0, 0.5], seeds=[1, 2])
    assert table[["share", "train.seed"]].to_numpy().tolist() == [[0.5, 1], [0.5, 2], [1.0, 1], [1.0, 2]]
    assert (table["error"] == "").all()
    prepared = [
        prepare(Recipe.load(Run.open(path).path / "config.yaml").data, tmp_path / "data") for path in table["run"]
    ]
    assert [one.metadata["splits"]["train"]["characters"] for one in prepared] == [225, 225, 450, 450]
    texts = {one.tokenizer.decode(one.validation.tokens) for one in prepared}
    assert len(texts) == 1
    with pytest.raises(ConfigError, match="above 0 and up to 1"):
        learning_curve(recipe, tmp_path, [0.0, 0.5])


def test_every_search_in_configs_fits_the_recipe_it_is_for():
    from utils.experiments.search_space import check_space, parse_space

    names = [file.stem for file in CONFIGS.glob("search_*.yaml")]
    assert "search_transformer" in names
    for name in names:
        config = load_search(name, ["trials=3"])
        assert config.trials == 3
        base = load_recipe("bert_mlm" if name.endswith("_source") else "char_lm_cpu")
        check_space(parse_space(config.space), base)


def watched(begun):
    """`train` that reports each evaluation, and notes the weights that each run begins with."""

    def train(recipe, root, *, on_evaluation):
        def build(data):
            model = build_model(recipe, data)
            begun.append(weights_hash(model.state_dict()))
            return model, next_token

        def sampler(run, data):
            def sample(model, step):
                on_evaluation(step, evaluate(model, next_token, data.validation, recipe.train))
                return ""

            return sample

        return train_model(
            recipe.train,
            prepare=lambda: prepare(recipe.data, root.parent / "data"),
            build=build,
            take_run=lambda data: start_run(recipe, data, root),
            sampler=sampler,
        )

    return train


def test_each_trial_is_a_run_of_fresh_weights_in_the_studys_folder(recipe, tmp_path):
    begun = []
    config = SearchConfig(name="lrs", trials=3, pruner="none", space={"train.lr": {"log": [1e-3, 1e-1]}})
    found = search(recipe, config, trial(tmp_path, train=watched(begun)), tmp_path)
    assert (found.table["state"] == "complete").all()
    runs = Run.all(tmp_path / "lrs")
    assert [run.name for run in runs] == ["lrs-000", "lrs-001", "lrs-002"]
    assert [str(run.path) for run in runs] == found.table["run"].tolist()
    assert [run.config["train"]["lr"] for run in runs] == found.table["train.lr"].tolist()
    trained = [weights_hash(Checkpoints(run.path / "checkpoints").last().load()["model"]) for run in runs]
    first = weights_hash(build_model(recipe, prepare(recipe.data, tmp_path / "data")).state_dict())
    assert begun == [first] * 3  # one seed and one shape, so one set of first weights
    assert len({first, *trained}) == 4
    assert all(
        trial.intermediate_values[4] == pytest.approx(run.metrics()["validation/loss"][4])
        for trial, run in zip(found.study.trials, runs)
    )
    best = Recipe.load(found.folder / "best.yaml")
    assert best == recipe.replace(train={"lr": found.best.params["train.lr"]})


def test_a_run_that_falls_behind_is_stopped_in_its_training(recipe, tmp_path):
    """The third trial's rate of 10 throws its weights about; it is stopped at step 2, the first that may be judged."""
    rates = iter([1e-2, 1e-2, 10.0])

    def one(config, watch):
        return trial(tmp_path, train=watched([]))(config.replace(train={"lr": next(rates)}), watch)

    space = {"train.max_grad_norm": {"float": [0.9, 1.1]}}
    config = SearchConfig(trials=3, pruner="median", startup_trials=2, min_steps=2, space=space)
    table = search(recipe, config, one, tmp_path).table
    assert table["state"].tolist() == ["complete", "complete", "pruned"]
    stopped = Run.all(tmp_path / "search")[2].metrics()
    assert table["steps"][2] == stopped.index.max() == 2


def test_a_run_that_stopped_before_its_end_is_no_result(recipe, tmp_path):
    def stopped(recipe, root):
        result = train(recipe, root)
        return replace(result, progress=replace(result.progress, finished=""))

    table, summary = seed_variance(recipe, tmp_path, [1], train=stopped)
    assert "stopped after 4 steps, before its end" in table["error"][0]
    assert summary.empty


@pytest.fixture
def hours(monkeypatch):
    """A clock on which every step of training takes an hour, for the deadline of what the process trains."""
    clock, step = [0.0], Stepper.step

    def hour(self, *args, **kwargs):
        clock[0] += 3600
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Stepper, "step", hour)
    ticking = functools.partial(deadline, clock=lambda: clock[0])
    monkeypatch.setattr("utils.training.studies.deadline", ticking)
    monkeypatch.setattr("utils.training.many.deadline", ticking)
    return clock


def test_trials_of_a_search_share_the_hours_and_one_that_is_stopped_is_gone_on_with(recipe, hours, tmp_path):
    """Trials of 4 steps: a session of 6.5 hours stops after the second one's third step, the first that is too late."""
    timed = recipe.replace(train={"max_hours": 6.5})
    config = SearchConfig(name="lrs", trials=2, pruner="none", space={"train.lr": {"log": [1e-3, 1e-1]}})
    first = search_recipe(timed, config, tmp_path)
    assert first.table["state"].tolist() == ["complete", "fail", "waiting"]
    assert "stopped for train.max_hours 6.5 after 3 steps" in str(first)
    second = search_recipe(timed, config, tmp_path)
    assert second.table["state"].tolist() == ["complete", "fail", "complete"]
    runs = Run.all(tmp_path / "lrs")
    assert [len(run.stamp["sessions"]) for run in runs] == [1, 2]
    assert [run.metrics().index.max() for run in runs] == [4, 4]


def test_runs_of_a_study_share_the_hours(recipe, hours, tmp_path):
    timed = recipe.replace(train={"max_hours": 6.5})
    table, summary = seed_variance(timed, tmp_path, [1, 2, 3])
    assert summary.loc["loss", "runs"] == 1
    assert [error[:11] for error in table["error"]] == ["", "stopped for", "not begun: "]
    table, summary = seed_variance(timed, tmp_path, [1, 2, 3])
    assert table["error"].tolist() == ["", "", ""]


def test_recipes_trained_in_one_go_share_the_fewest_hours_that_one_of_them_asks_for(recipe, hours, tmp_path):
    several = [recipe.replace(train={"seed": seed, "max_hours": most}) for seed, most in ((1, None), (2, 6.5), (3, 9))]
    table = train_many(several, tmp_path)
    assert [ended[:11] for ended in table["ended"]] == ["complete af", "stopped for", "not begun: "]
    assert table["error"].tolist() == ["", "", ""]
    assert len(Run.all(tmp_path)) == 2
    assert (train_many(several, tmp_path)["ended"] == "complete after 4 steps").all()


def test_the_forms_search_waits_for_the_forms_run_and_shares_its_hours(recipe, hours, tmp_path, monkeypatch):
    timed = recipe.replace(train={"max_hours": 1e-9})
    assert train(timed, tmp_path).stopped
    run = Run.all(tmp_path)[0]
    waiting = searched(timed, tmp_path, "search_training", 1)
    assert str(waiting).startswith(f"No search: {run.path.name} is not complete yet. Run the same again")
    assert not (tmp_path / "training").exists()
    ended = recipe.replace(train={"max_hours": 4.0})  # which decides no weight
    assert train(ended, tmp_path).progress.finished
    assert len(Run.all(tmp_path)) == 1
    stamp = run.stamp  # as if that session had begun two hours before: the form's search has two hours left
    begun = datetime.fromisoformat(stamp["sessions"][-1]["started"]) - timedelta(hours=2)
    stamp["sessions"][-1]["started"] = begun.isoformat()
    run._write_stamp(stamp)
    monkeypatch.setattr("psutil.Process.create_time", lambda self: begun.timestamp() - 1)
    found = searched(ended, tmp_path, "search_training", 1)
    assert found.table["state"].tolist() == ["fail", "waiting"]
    assert "after 2 steps" in str(found)  # two hours less the test's own seconds: the second step is the first too late
    assert str(searched(recipe, tmp_path, "search_training", 0)) == "No search: search_trials is 0."
