"""The data report: its numbers, when it warns, and the figure of the lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest

from utils.data.report import lengths_of, plot_lengths
from utils.data.task import TaskDataConfig, prepare_task

WORDPIECE = {"kind": "wordpiece", "vocab_size": 257}


@pytest.fixture
def data(tmp_path):
    """Validation shares 2 of its 10 rows with train; `rare` has 2 of 62 rows; two rows are empty, one long, one odd."""
    folder = tmp_path / "rows"
    folder.mkdir()
    numbers = ["one", "two", "three", "four", "five", "six", "seven"]
    texts = [f"word number {numbers[at % 7]} {'again ' * (at % 9)}{'ab' * at}" for at in range(60)]
    train = [{"text": text, "label": "usual"} for text in texts]
    train += [{"text": "again " * 100, "label": "rare"}, {"text": "\u2603 \u2603 \u2603", "label": "rare"}]
    train += [{"text": "", "label": "usual"}, {"text": " ", "label": "usual"}]
    validation = [{"text": f"number seven {'four ' * at}", "label": "usual"} for at in range(8)] + train[:2]
    for name, content in (("train", train), ("validation", validation)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    config = TaskDataConfig(source=str(folder), tokenizer=WORDPIECE, splits=(0.9, 0.1, 0.0), max_length=64)
    return prepare_task(config, "classifier", tmp_path / "data")


def test_the_report_counts_what_is_there(data):
    report = data.report(batch_size=4)
    counts = report["rows"].table
    assert counts.loc["train", "rows"] == 62
    assert counts.loc["train", "without text, left out"] == 2
    assert counts.loc["validation", "rows"] == 10
    lengths = lengths_of(data, "train")
    assert lengths.max() == 102  # a hundred words and two marks, before the cut
    assert report["lengths"].table.loc["train", "50%"] == round(np.median(lengths))
    assert "1 of 72 rows" in report["truncation"].summary
    assert report["duplicates"].table.loc[0, "exact"] == 2
    assert f"{data.train.padding(4, seed=0):.1%}" in report["padding"].summary
    assert report["class balance"].table["train"].to_dict() == {"rare": 2, "usual": 60}
    assert report["vocabulary"].table.loc["train", "unknown"] >= 2


def test_the_report_warns_of_duplicates_and_rare_classes_and_shows_itself(data):
    report = data.report()
    assert report["duplicates"].status == report["class balance"].status == "warn"
    assert "rare in validation" in report["class balance"].summary
    shown = report._repr_html_()
    assert "class balance" in shown
    assert "data:image/png" in shown


def test_the_lengths_are_drawn_for_each_split_with_the_cut(data):
    ax = plot_lengths(data).axes[0]
    labels = [line.get_label() for line in ax.get_lines()]
    assert labels[:2] == ["train", "validation"]
    assert ax.get_lines()[2].get_xdata()[0] == 64
    x, y = ax.get_lines()[0].get_data()
    assert y[np.searchsorted(x, 64, "right") - 1] == pytest.approx(np.mean(lengths_of(data, "train") <= 64))


def test_packed_data_have_a_report_without_truncation(tmp_path):
    config = TaskDataConfig(limit=200, block_size=32, tokenizer=WORDPIECE)
    report = prepare_task(config, "masked_lm", tmp_path).report()
    assert "none" in report["truncation"].summary
    assert [check.name for check in report.checks][-1] == "duplicates"
    assert report.sound
