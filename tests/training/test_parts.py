"""Folds and shares of data: every part is judged once, none is trained on where it is judged, the test part in none."""

import json
import random
from pathlib import Path

import pytest

from utils.core.config import ConfigError, parse_overrides
from utils.data.loaders import DataConfig, prepare, split_text
from utils.data.rows import load_rows
from utils.data.task import TaskDataConfig
from utils.training.parts import folds, shares


@pytest.fixture
def text(tmp_path):
    """1003 characters, of which the last 103 are test: `splits` as below cut at round(802.4) and round(902.7)."""
    path = tmp_path / "text.txt"
    path.write_text("".join(random.Random(0).choices("abcdefgh \n", k=1003)))
    return DataConfig(corpus=str(path), splits=(0.8, 0.1, 0.1), block_size=8)


def parts_of(data, overrides):
    changed = data.replace(**parse_overrides(overrides)["data"])
    return split_text(Path(changed.corpus).read_text(), changed.splits), changed


def test_folds_of_a_text_are_contiguous_and_judge_each_character_once(text, tmp_path):
    whole = Path(text.corpus).read_text()
    variations = folds(text, 4, tmp_path / "folds")
    found = [parts_of(text, one)[0] for one in variations]
    assert "".join(part["validation"] for part in found) == whole[:903]
    for part in found:
        before, after = whole[:903].split(part["validation"])
        assert part["train"] == before + after
        assert part["test"] == whole[903:]
    assert {len(part["validation"]) for part in found} <= {225, 226}  # 903 / 4 = 225.75
    assert prepare(parts_of(text, variations[1])[1], tmp_path / "data").test.targets == 99  # 100 tokens
    assert folds(text, 4, tmp_path / "folds") == variations


def test_shares_of_a_text_are_its_ends_before_the_same_validation_part(text, tmp_path):
    whole = Path(text.corpus).read_text()
    found = [parts_of(text, one)[0] for one in shares(text, [0.25, 1.0], tmp_path / "shares")]
    assert [len(part["train"]) for part in found] == [200, 802]  # a quarter of 802 is 200.5, rounded to even
    assert all(whole[:802].endswith(part["train"]) for part in found)
    assert all((part["validation"], part["test"]) == (whole[802:903], whole[903:]) for part in found)


@pytest.fixture
def rows(tmp_path):
    """100 rows of 50 texts, each twice but for case."""
    path = tmp_path / "rows.jsonl"
    lines = [{"text": f"{word} text number {n}", "label": n % 2} for n in range(50) for word in ("A", "a")]
    path.write_text("\n".join(map(json.dumps, lines)))
    return TaskDataConfig(source=str(path))


def texts(data, overrides):
    changed = data.replace(**parse_overrides(overrides)["rows"])
    return {name: list(table.columns["text"]) for name, table in load_rows(changed).items()}, changed


def test_folds_of_rows_follow_the_seed_judge_each_row_once_and_keep_like_rows_together(rows, tmp_path):
    found = [texts(rows, one)[0] for one in folds(rows, 5, tmp_path / "folds", seed=3)]
    every = load_rows(rows)["train"].columns["text"]
    assert sorted(text for part in found for text in part["validation"]) == sorted(every)
    for part in found:
        assert sorted(part["train"] + part["validation"]) == sorted(every)
        assert not {text.lower() for text in part["train"]} & {text.lower() for text in part["validation"]}
        assert len(part["validation"]) == 20  # 50 different texts over 5 folds, each twice
        assert "test" not in part
    other = [texts(rows, one)[0] for one in folds(rows, 5, tmp_path / "folds", seed=4)]
    assert [part["validation"] for part in other] != [part["validation"] for part in found]


def test_a_test_split_of_the_source_is_in_no_fold(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, words in (("train", "abcdef"), ("dev", "ghi"), ("test", "xyz")):
        (folder / f"{name}.csv").write_text("text,label\n" + "".join(f"{word},1\n" for word in words))
    for one in folds(TaskDataConfig(source=str(folder)), 3, tmp_path / "folds"):
        part, changed = texts(TaskDataConfig(source=str(folder)), one)
        assert part["test"] == ["x", "y", "z"]
        assert sorted(part["train"] + part["validation"]) == list("abcdefghi")
        assert changed.splits == TaskDataConfig().splits


def test_shares_of_rows_hold_the_smaller_ones_and_are_judged_alike(rows, tmp_path):
    found = [texts(rows, one)[0] for one in shares(rows, [0.1, 0.5, 1.0], tmp_path / "shares")]
    small, half, whole = (set(part["train"]) for part in found)
    assert small < half < whole
    assert [len(part["train"]) for part in found] == [9, 45, 90]  # of the 90 rows that are not held out
    assert found[0]["validation"] == found[1]["validation"] == found[2]["validation"]
    assert not whole & set(found[0]["validation"])


def test_classes_that_the_data_state_keep_their_names_and_order(tmp_path):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "maybe", "yes"])})
    content = {"text": [f"row {n}" for n in range(9)], "label": [0, 2] * 4 + [0]}
    DatasetDict({"train": Dataset.from_dict(content, features)}).save_to_disk(tmp_path / "saved")
    data = TaskDataConfig(source=str(tmp_path / "saved"))
    changed = texts(data, folds(data, 2, tmp_path / "folds")[0])[1]
    assert changed.classes == ("no", "maybe", "yes")
    assert set(load_rows(changed)["train"].columns["label"]) <= {"no", "yes"}


def test_what_cannot_be_parted_is_refused(text, rows, tmp_path):
    with pytest.raises(ConfigError, match="expected at least 2"):
        folds(text, 1, tmp_path)
    with pytest.raises(ConfigError, match="51 folds of 100 rows leave 1 empty"):
        folds(rows, 51, tmp_path / "folds")
    with pytest.raises(ConfigError, match="no more folds than characters"):
        folds(text, 2000, tmp_path / "folds")
