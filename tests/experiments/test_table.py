"""The experiment table: every kind of run, sorted by any metric, and what could not be read."""

import pytest

from utils.core import jsonl
from utils.core.config import Config
from utils.core.run import Run, RunError
from utils.core.tracking import Tracking
from utils.experiments.scores import ended
from utils.experiments.table import experiment_table


class Settings(Config):
    seed: int = 0


def made(root, name, records, seed=0):
    run = Run.create(root, name, Settings(seed=seed))
    run.begin_session(0)
    for step, record in records:
        jsonl.append(run.metrics_file, {"step": step, "time": 0.0, **record})
    return run


@pytest.fixture
def root(tmp_path):
    """A language model, a VAE and a PPO run, with the metrics that their loops log."""
    lm = [(1, {"train/loss": 4.0}), (200, {"train/loss": 2.0, "validation/loss": 2.5, "validation/perplexity": 12.2}),
          (400, {"validation/loss": 2.7, "validation/perplexity": 14.9})]  # fmt: skip
    vae = [(100, {"train/loss": 90.0, "validation/loss": 80.0, "validation/kl": 10.0, "validation/exact": 0.3})]
    ppo = [(0, {"validation/pass@1": 0.1, "validation/greedy": 0.2}), (5, {"train/policy_loss": 0.01}),
           (8, {"validation/pass@1": 0.6, "validation/greedy": 0.5}), (9, {"validation/pass@1": 0.4})]  # fmt: skip
    for seed, (name, records) in enumerate({"lm": lm, "vae": vae, "ppo": ppo}.items()):
        made(tmp_path, name, records, seed)
    return tmp_path


def names(table):
    return [name.split("-")[0] for name in table.table["run"]]


def test_runs_of_every_kind_stand_in_one_table_the_newest_first(root):
    table = experiment_table(root)
    assert names(table) == ["ppo", "vae", "lm"]
    rows = table.table.set_index(table.table["run"].str.split("-").str[0])
    assert rows.loc["lm", "validation/loss"] == 2.5
    assert rows.loc["ppo", "validation/pass@1"] == 0.6
    assert rows.loc["vae", "validation/exact"] == 0.3
    assert rows["validation/pass@1"].isna().to_dict() == {"ppo": False, "vae": True, "lm": True}
    assert rows["steps"].to_dict() == {"ppo": 9, "vae": 100, "lm": 400}
    assert rows["seed"].to_dict() == {"ppo": "2", "vae": "1", "lm": "0"}
    assert table.unreadable == {}


@pytest.mark.parametrize(
    ("metric", "order"),
    [
        ("validation/loss", ["lm", "vae", "ppo"]),
        ("validation/pass@1", ["ppo", "lm", "vae"]),
        ("train/loss", ["lm", "vae", "ppo"]),
    ],
)
def test_it_is_sorted_by_any_metric_and_runs_without_it_come_last(root, metric, order):
    assert names(experiment_table(root, sort=metric)) == order
    assert names(experiment_table(root).sort(metric)) == order


def test_the_way_may_be_given(root):
    assert names(experiment_table(root, sort="validation/loss", better="higher")) == ["vae", "lm", "ppo"]


def test_it_is_computed_anew(root):
    before = len(experiment_table(root).table)
    made(root, "fresh", [(1, {"validation/loss": 0.1})])
    assert len(experiment_table(root).table) == before + 1
    assert names(experiment_table(root, sort="validation/loss"))[0] == "fresh"


def test_folders_that_cannot_be_read_are_listed_with_their_reason_and_hide_no_other(root):
    (root / "data").mkdir()  # no run, and nothing that says so
    half = root / "half"
    half.mkdir()
    (half / "config.yaml").write_text("seed: 0\n")
    torn = made(root, "torn", [])
    (torn.path / "env_stamp.json").write_text('{"run_id": ')
    broken = made(root, "broken", [])
    (broken.path / "config.yaml").write_text("seed: [1\n")
    foreign = made(root, "foreign", [])
    foreign.metrics_file.write_text('{"loss": 1}\n')
    table = experiment_table(root)
    assert names(table) == ["ppo", "vae", "lm"]
    assert set(table.unreadable) == {"half", torn.path.name, broken.path.name, foreign.path.name}
    assert "env_stamp.json" in table.unreadable["half"]
    assert "JSONDecodeError" in table.unreadable[torn.path.name]
    assert "step" in table.unreadable[foreign.path.name]
    for shown in (str(table), table._repr_html_()):
        assert all(name in shown for name in table.unreadable)


def test_a_run_without_metrics_and_an_empty_root_are_shown(tmp_path):
    assert "0 runs" in str(experiment_table(tmp_path))
    assert "0 runs" in experiment_table(tmp_path)._repr_html_()
    made(tmp_path, "new", [])
    assert names(experiment_table(tmp_path)) == ["new"]
    assert "new-" in str(experiment_table(tmp_path))


def test_each_run_says_how_it_ended_and_the_step_that_it_came_to(tmp_path):
    outcomes = {"whole": "complete after 7 steps", "early": "stopped early after 7 steps", "cut": "interrupted"}
    for name, told in {**outcomes, "broken": "ValueError: no"}.items():
        run = made(tmp_path, name, [(5, {"train/loss": 1.0})])
        tracking = Tracking(run)
        tracking.step = 7  # done, and not logged
        tracking.close(told, failed=name == "broken")
    killed = made(tmp_path, "killed", [(5, {"train/loss": 1.0})])
    Run.create(tmp_path, "fresh", Settings())
    pulled = made(tmp_path, "pulled", [])
    pulled._write_stamp({**pulled.stamp, "pulled": "a/b"})
    table = experiment_table(tmp_path).table
    found = {run.split("-")[0]: (status, steps) for run, status, steps in table[["run", "status", "steps"]].values}
    assert found == {
        "whole": ("complete", 7), "early": ("complete", 7), "cut": ("interrupted", 7), "broken": ("failed", 7),
        "killed": ("not ended", 5), "fresh": ("not begun", 0), "pulled": ("pulled", 0),
    }  # fmt: skip
    assert ended(killed) == ("not ended", 0)


def test_one_folder_is_one_folder(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.yaml").write_text("")
    assert "1 folder could not be read" in str(experiment_table(tmp_path))


def test_an_unknown_metric_and_a_missing_root_are_named(root):
    with pytest.raises(RunError, match="has validation/bleu; logged are: .*validation/loss"):
        experiment_table(root, sort="validation/bleu")
    with pytest.raises(RunError, match="No folder"):
        experiment_table(root / "nowhere")


def test_trials_and_reproductions_in_folders_of_their_own_are_among_them(root):
    trial = made(root / "lrs", "lrs-000", [(1, {"validation/loss": 0.5})])
    again = made(root / "reproduced", "lm", [(1, {"validation/loss": 2.6})])
    (trial.path / "checkpoints" / "copy").mkdir()
    (trial.path / "checkpoints" / "copy" / "config.yaml").write_text("")  # what lies in a run is its own
    (root / "lrs" / "study.db").write_text("")
    (root / "link").symlink_to(root / "lrs")
    table = experiment_table(root, sort="validation/loss")
    assert table.table["run"].tolist()[0] == f"lrs/{trial.path.name}"
    assert f"reproduced/{again.path.name}" in table.table["run"].tolist()
    assert len(table.table) == 5
    assert table.unreadable == {}


def test_the_usual_metrics_sort_a_root_in_which_no_run_has_been_evaluated_yet(tmp_path):
    assert "0 runs" in str(experiment_table(tmp_path, sort="validation/loss"))
    for name in ("one", "two"):
        made(tmp_path, name, [(1, {"train/loss": 3.0})])
    table = experiment_table(tmp_path, sort="validation/loss")
    assert len(table.table) == 2
    assert table.table["validation/loss"].isna().all()
    assert "one-" in str(table)
    assert "one-" in table._repr_html_()
