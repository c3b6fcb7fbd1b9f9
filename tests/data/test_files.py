"""Local files as tables: what comes out, and the file and line that an error names."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset

from utils.data.files import read_file, read_folder, split_of
from utils.data.text import CorpusError


@pytest.fixture
def put(tmp_path):
    def write(name: str, content: str):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")
        return path

    return write


def test_csv_keeps_separators_and_line_breaks_in_quotes_and_counts_lines_as_an_editor_does(put):
    table = read_file(put("a.csv", '\ufefftext,label\n"one, ""1""",x\n"two\nlines",y\n\nlast,z\n'))
    assert dict(table.columns) == {"text": ['one, "1"', "two\nlines", "last"], "label": ["x", "y", "z"]}
    assert [table.where(row).rpartition(" ")[2] for row in range(3)] == ["2", "4", "6"]


def test_tsv_is_csv_with_tabs(put):
    assert dict(read_file(put("a.tsv", "text\tlabel\na,b\tx\n")).columns) == {"text": ["a,b"], "label": ["x"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\ngood,x\nshort\n", r"a\.csv, line 3: 1 columns; expected the 2 of the header .*'short'"),
        ("a.csv", "text,label\na,b,c\n", r"line 2: 3 columns; expected the 2.*Quote a text that holds the separator"),
        ("a.csv", 'text,label\n"open,x\n', "line 2: .*Mend the quotes"),
        ("a.csv", "text,text\na,b\n", "names text twice"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.csv", "", "is empty"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": \n', r"a\.jsonl, line 3 is not JSON .*one object a line"),
        ("a.jsonl", '["a", "b"]\n', "line 1 holds a list; expected an object"),
        ("a.docx", "x", r"is a \.docx file; expected one of \.csv"),
        ("a.parquet", "no parquet", "is no parquet file"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(put, name, content, message):
    with pytest.raises(CorpusError, match=message):
        read_file(put(name, content))


def test_jsonl_rows_may_lack_columns_and_hold_any_kind_of_value(put):
    rows = [{"text": "a", "n": 1}, {"text": "b", "tags": ["x"]}]
    table = read_file(put("a.jsonl", "\n".join(map(json.dumps, rows))))
    assert dict(table.columns) == {"text": ["a", "b"], "n": [1, None], "tags": [None, ["x"]]}


def test_txt_gives_a_row_a_paragraph(put):
    table = read_file(put("a.txt", "\n\none\nstill one\n  \n\ntwo\n"))
    assert table.columns["text"] == ["one\nstill one", "two"]
    assert [table.where(row).rpartition(" ")[2] for row in (0, 1)] == ["3", "7"]


def test_parquet_keeps_values_and_class_names(tmp_path):
    from datasets import ClassLabel, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "a.parquet")
    table = read_file(tmp_path / "a.parquet")
    assert (list(table.columns["text"]), list(table.columns["label"])) == (["a", "b"], [1, 0])
    assert table.classes == {"label": ("no", "yes")}


def test_a_folder_has_the_splits_that_its_files_are_named_for(put, tmp_path):
    for name, text in {"train-1": "b", "train-0": "a", "dev": "c", "test": "d"}.items():
        put(f"data/{name}.csv", f"text\n{text}\n")
    put("data/README.md", "about")
    splits = read_folder(tmp_path / "data")
    assert {name: table.columns["text"] for name, table in splits.items()} == {
        "train": ["a", "b"], "validation": ["c"], "test": ["d"],
    }  # fmt: skip
    assert splits["train"].where(1).endswith("train-1.csv, line 2")


def test_files_that_name_no_split_are_all_train_and_must_agree_on_columns(put, tmp_path):
    put("data/b.jsonl", '{"text": "2"}')
    put("data/a.csv", "text\n1\n")
    assert read_folder(tmp_path / "data")["train"].columns["text"] == ["1", "2"]
    put("data/c.csv", "words\n3\n")
    with pytest.raises(CorpusError, match=r"c\.csv has the columns words, and .*a\.csv has text"):
        read_folder(tmp_path / "data")


def test_a_folder_with_train_files_and_others_or_with_none_is_refused(put, tmp_path):
    put("data/train.csv", "text\n1\n")
    put("data/more.csv", "text\n1\n")
    with pytest.raises(CorpusError, match="name no split: more.csv"):
        read_folder(tmp_path / "data")
    (tmp_path / "none").mkdir()
    with pytest.raises(CorpusError, match="holds no data"):
        read_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("dev-00001", "validation"),
        ("validation_matched", "validation"),
        ("testing", None),
        ("x", None),
    ],
)
def test_splits_are_told_by_the_first_word_of_a_name(name, split):
    assert split_of(name) == split
