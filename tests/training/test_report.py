"""A run's report, whatever the run came to."""

import json

from utils.core import jsonl
from utils.experiments.compare import beside
from utils.training.recipes import finish, load_recipe, train

SHORT = {"max_steps": 30, "batch_size": 6, "warmup_steps": 2, "sample_every": 0, "device": "cpu", "trackers": ()}


def recipe_of(data, **changes):
    return load_recipe("minimal_test").replace(
        data={"corpus": data.metadata["source"], "block_size": 8},
        model={"width": 16},
        train={**SHORT, **changes},
        sample={"max_new_tokens": 2},
    )


def test_a_session_stopped_before_its_first_evaluation_has_a_report_and_may_be_laid_beside_others(data, tmp_path):
    result = train(recipe_of(data, eval_every=1000, max_hours=1e-9), tmp_path)
    run = result.run
    assert result.stopped
    assert "validation/loss" not in run.metrics()
    text = finish(run).read_text()
    assert f"{result.progress.step} steps, not evaluated yet." in text
    assert f"{run.path.name} has no validation/loss yet" in str(beside(run))
    assert run.path.name in beside(run)._repr_html_()

    other = train(recipe_of(data, eval_every=2, max_steps=2, seed=5), tmp_path).run
    assert "lowest validation loss at step 2." in finish(other).read_text()
    found = beside(run)  # the other is shown, and why this one is not
    assert found.table["run"].tolist() == [other.path.name]
    assert f"{run.path.name} has no validation/loss yet" in str(found)


def test_an_evaluation_that_found_no_number_is_no_best(data, tmp_path):
    run = train(recipe_of(data, eval_every=2, max_steps=2), tmp_path).run
    records = [{**record, "validation/loss": None} for record in jsonl.read(run.metrics_file)]
    run.metrics_file.write_text("".join(json.dumps(one) + "\n" for one in records))
    assert "not evaluated yet" in finish(run).read_text()
