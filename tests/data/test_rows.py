"""Sources of rows: what each name yields, and what is said where there is nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from utils.data import python_tasks
from utils.data.examples import class_names, read_examples
from utils.data.rows import RowsConfig, load_rows
from utils.data.table import Table
from utils.data.text import CorpusError, load_corpus

REVIEWS = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})


@pytest.fixture
def saved(tmp_path):
    """A folder as `datasets.save_to_disk` leaves it."""
    splits = {
        name: Dataset.from_dict({"text": [f"{name} {n}" for n in range(size)], "label": [0, 1] * (size // 2)}, REVIEWS)
        for name, size in {"train": 20, "dev": 4, "test": 6, "extra": 2}.items()
    }
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_saved_dataset_gives_its_splits_and_class_names(saved):
    tables = load_rows(RowsConfig(source=str(saved)))
    assert {name: len(table) for name, table in tables.items()} == {"train": 20, "validation": 4, "test": 6}
    assert tables["validation"].columns["text"][1] == "dev 1"
    assert tables["train"].classes == {"label": ("bad", "good")}


def test_splits_may_be_named_and_a_wrong_name_lists_those_there_are(saved):
    tables = load_rows(RowsConfig(source=str(saved), train_split="extra", validation_split="train"))
    assert {name: len(table) for name, table in tables.items()} == {"train": 2, "validation": 20, "test": 6}
    with pytest.raises(CorpusError, match="no split 'valid'; it has: train, dev, test, extra.*validation_split="):
        load_rows(RowsConfig(source=str(saved), validation_split="valid"))


def test_a_dataset_without_splits_is_all_train(saved, tmp_path):
    Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "one")
    assert load_rows(RowsConfig(source=str(tmp_path / "one")))["train"].columns["text"][0] == "a"


def test_a_limit_takes_rows_at_equal_distances_and_keeps_their_places(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("n\n" + "".join(f"{number}\n" for number in range(10)))
    table = load_rows(RowsConfig(source=str(path), limit=4))["train"]
    assert table.columns["n"] == ["0", "2", "5", "7"]  # 0, 10/4, 20/4, 30/4, rounded down
    assert table.where(3).endswith("line 9")  # the header is line 1
    assert len(load_rows(RowsConfig(source=str(path), limit=99))["train"]) == 10


def test_a_part_of_a_column_is_named_with_a_point():
    table = Table({"translation": [{"de": "ja", "en": "yes"}, None]}, "t", str)
    assert table.column("translation.de", "text") == ["ja", None]


def test_a_column_that_is_missing_is_asked_for_by_the_setting_that_names_one():
    table = Table({"review": ["fine"], "sentiment": ["good"]}, "t", str)
    naming = r'rows\.label=sentiment \(in the notebook: overrides = "rows\.label=sentiment"\)\.$'
    with pytest.raises(CorpusError, match=r"^t has no column 'label'; its columns: review, sentiment\. .*" + naming):
        table.column("label", "rows.label")
    with pytest.raises(CorpusError, match=r"Name one of them: rows\.text=review "):
        table.column("text", "rows.text")
    with pytest.raises(CorpusError, match=r"Name one of them: rows\.text=sentiment "):  # spelled almost so
        table.column("sentiments", "rows.text")
    with pytest.raises(CorpusError, match=r"no column 'label'.*rows\.label=sentiment"):
        class_names(table, "label", None)
    with pytest.raises(CorpusError, match=r"no column 'text'.*rows\.text=review"):
        read_examples(table, text="text")


def test_python_docs_rows_are_the_paragraphs_of_the_corpus():
    from utils.data.text import CorpusConfig

    rows = load_rows(RowsConfig())["train"].columns["text"]
    assert "\n\n".join(rows).split() == load_corpus(CorpusConfig()).text.split()
    assert len(rows) > 1500


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("python-topics", {"text", "label", "group"}, 3000),
        ("python-names", {"text", "target", "group"}, 1500),
        ("python-words", {"text", "target", "group"}, 3000),
    ],
)
def test_shipped_tasks_have_thousands_of_rows_without_a_gap(name, columns, rows):
    table = load_rows(RowsConfig(source=name))["train"]
    assert set(table.columns) == columns
    assert len(table) > rows
    assert all(value.strip() for values in table.columns.values() for value in values)
    assert len(set(zip(table.columns["text"], table.columns.get("target", table.columns["text"])))) == len(table)


def test_the_topics_of_python_are_all_there_and_none_has_a_third_of_the_rows():
    labels = python_tasks.topics().columns["label"]
    assert set(labels) == set(python_tasks.TOPICS)
    assert max(labels.count(topic) for topic in python_tasks.TOPICS) < len(labels) / 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("getHTTPResponse_2", "get http response 2"),
        ("snake_case", "snake case"),
        ("_Private", "private"),
        ("URL", "url"),
        ("base64encode", "base 64 encode"),
    ],
)
def test_identifiers_fall_into_words(name, words):
    assert python_tasks.words_of(name) == words


@pytest.mark.parametrize("name", ["python-topic", "no/such.csv"])
def test_a_name_that_is_no_source_is_refused_with_what_was_expected(name):
    with pytest.raises(CorpusError, match=f"No data '{name}': expected python-docs, .*hf:NAME, a folder, or a file"):
        load_rows(RowsConfig(source=name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "a.csv", "revision": "main"}, "revision goes with a source hf:NAME"),
        ({"source": "hf:x", "streaming": True}, "streaming=true needs limit"),
    ],
)
def test_settings_that_contradict_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RowsConfig(**fields)


HUB = """
import json, sys, logging
from utils.data.rows import *
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
answers = []
for fields in json.loads(sys.argv[1]):
    try:
        answers.append({split: list(table.columns["text"]) for split, table in load_rows(RowsConfig(**fields)).items()})
    except CorpusError as error:
        answers.append(f"CorpusError: {error}")
print(json.dumps(answers))
"""


def hub(wanted: list[dict], home, **environment) -> tuple[list, str]:
    """`load_rows` in a process of its own, whose cache is empty."""
    environment = {**os.environ, "HF_HOME": str(home), **environment}
    command = [sys.executable, "-c", HUB, json.dumps(wanted)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(process.stdout), process.stderr


def test_a_dataset_of_the_datasets_library_is_read_whole_in_slices_or_as_a_stream(tmp_path):
    folder = tmp_path / "plays"
    folder.mkdir()
    for name, size in {"train": 10, "validation": 3}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": f"{name} {n}"}) for n in range(size)))
    source = f"hf:{folder}"
    wanted = [
        {"source": source},
        {"source": source, "streaming": True, "limit": 2},
        {"source": source, "train_split": "train[:30%]", "validation_split": "validation"},
        {"source": source, "hf_config": "none"},
    ]
    (whole, stream, slices, wrong), _ = hub(wanted, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert {name: len(rows) for name, rows in whole.items()} == {"train": 10, "validation": 3}
    assert stream == {"train": ["train 0", "train 1"], "validation": ["validation 0", "validation 1"]}
    assert slices == {"train": ["train 0", "train 1", "train 2"], "validation": [f"validation {n}" for n in range(3)]}
    assert wrong.startswith("CorpusError: Hugging Face dataset")


@pytest.fixture
def faulty():
    """A local stand-in for the hub that answers every request with `status`; `requests` are counted."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.requests += 1
            self.send_response(served.status)
            self.send_header("X-Error-Code", served.code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.status, served.code, served.requests = 404, "RepoNotFound", 0
    threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def test_a_dataset_that_the_hub_does_not_have_is_an_error_without_another_attempt(faulty, tmp_path):
    endpoint = {"HF_ENDPOINT": f"http://127.0.0.1:{faulty.server_port}", "no_proxy": "*"}
    (answer,), log = hub([{"source": "hf:someone/something"}], tmp_path / "home", HF_HUB_OFFLINE="0", **endpoint)
    assert "'someone/something' could not be read: DatasetNotFoundError" in answer
    assert faulty.requests >= 1
    assert "Attempt" not in log
