"""Rows to batches for each task: what is read, split, dropped, tokenised, kept on disk, and refused."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import PreTrainedTokenizerFast

from utils.data.loaders import DataConfig, TokenBlocks, prepare
from utils.data.masking import rebuild
from utils.data.task import TaskDataConfig, prepare_task
from utils.data.text import CorpusError
from utils.data.tokenizers import WordPieceTokenizer

WORDS = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "bird", "runs", "sleeps", "sings", "fast", "slow"]
WORDPIECE = {"kind": "wordpiece", "vocab_size": 300}
T5 = {"kind": "t5", "vocab_size": 400}


def sentences(number: int, seed: int = 0) -> list[str]:
    """Different ones, of 3 to 20 words."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < number:
        found[" ".join(draw.choices(WORDS, k=draw.randrange(3, 21)))] = None
    return list(found)


def same(left: list[dict], right: list[dict]) -> bool:
    return len(left) == len(right) and all(torch.equal(a[key], b[key]) for a, b in zip(left, right) for key in a)


@pytest.fixture
def rows(tmp_path):
    """Write rows as JSONL, and give the config that reads them and the folder to prepare in."""

    def write(content: list[dict], **fields) -> tuple[TaskDataConfig, object]:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, content)), encoding="utf-8")
        fields = {"tokenizer": WORDPIECE, "splits": (0.8, 0.1, 0.1), **fields}
        return TaskDataConfig(source=str(path), **fields), tmp_path / "data"

    return write


def example(task: str, number: int = 300) -> tuple[list[dict], dict]:
    """Rows of a task, and the settings that go with them."""
    texts = sentences(number)
    content = [
        {"text": text, "label": "animal" if "cat" in text else "none", "target": " ".join(reversed(text.split()))}
        for text in texts
    ]
    fields = {
        "seq2seq": {"tokenizer": T5},
        "spans": {"tokenizer": T5, "target": None, "block_size": 32},
        "rows": {"packed": False},
        "blocks": {"block_size": 16},
        "characters": {"tokenizer": {"kind": "char"}, "packed": False, "max_length": 200},
        "causal": {"tokenizer": {"kind": "bpe", "vocab_size": 300}, "block_size": 16},
    }
    return content, fields.get(task, {})


CASES = {
    "classifier": "classifier", "seq2seq": "seq2seq", "spans": "seq2seq", "rows": "masked_lm", "blocks": "masked_lm",
    "characters": "causal_lm", "causal": "causal_lm",
}  # fmt: skip


@pytest.fixture(params=CASES)
def prepared(request, rows):
    content, fields = example(request.param)
    return prepare_task(*_with_task(rows(content, **fields), CASES[request.param]))


def _with_task(given, task):
    config, root = given
    return config, task, root


def test_batches_of_every_task_are_functions_of_seed_and_epoch_taken_up_anywhere(prepared):
    again = prepare_task(prepared.config, prepared.task, prepared.folder.parent)
    assert again.folder == prepared.folder
    for seed, epoch in ((None, 0), (3, 0), (3, 2)):
        whole = list(prepared.train.batches(8, seed=seed, epoch=epoch))
        assert len(whole) == prepared.train.num_batches(8, seed=seed, epoch=epoch)
        for start in (0, 1, len(whole) // 2, len(whole)):
            assert same(list(again.train.batches(8, seed=seed, epoch=epoch, start=start)), whole[start:])
    assert not same(list(prepared.train.batches(8, seed=3)), list(prepared.train.batches(8, seed=4)))


def test_every_split_has_batches_of_the_keys_of_its_task(prepared):
    keys = {"input_ids", "labels"}
    keys |= set() if isinstance(prepared.train, TokenBlocks) else {"attention_mask"}
    keys |= {"decoder_input_ids", "decoder_attention_mask"} if prepared.task == "seq2seq" else set()
    for split in (prepared.train, prepared.validation, prepared.test):
        assert split.targets > 0
        for batch in split.batches(16, seed=0):
            assert set(batch) == keys
            assert all(value.dtype == torch.int64 for value in batch.values())
            assert (batch["labels"] != -100).any()
            assert batch["input_ids"].max() < prepared.tokenizer.vocab_size


def test_targets_say_how_many_labels_an_epoch_asks_for(prepared):
    asked = [
        sum(int((batch["labels"] != -100).sum()) for batch in prepared.train.batches(8, seed=0, epoch=epoch))
        for epoch in range(4)
    ]
    drawn = prepared.task == "masked_lm" or prepared.config.target is None
    # Masks are drawn: of short rows at least one each, so the mean is met only to a tenth; anything else exactly.
    assert np.mean(asked) == pytest.approx(prepared.train.targets, rel=0.1 if drawn else 0)


def test_labels_are_ignored_exactly_on_padding(rows):
    content, fields = example("seq2seq")
    data = prepare_task(*_with_task(rows(content, **fields), "seq2seq"))
    texts = {row["text"]: row["target"] for row in content}
    seen = []
    for batch in data.train.batches(8, seed=0):
        for ids, mask, labels, decoder in zip(*(batch[key] for key in (
            "input_ids", "attention_mask", "labels", "decoder_attention_mask"))):  # fmt: skip
            source = ids[mask == 1].tolist()
            target = labels[labels != -100].tolist()
            assert (source[-1], target[-1]) == (1, 1)  # the end, once
            assert texts[data.tokenizer.decode(source[:-1])] == data.tokenizer.decode(target[:-1])
            assert torch.equal(decoder, (labels != -100).long())
            seen.append(data.tokenizer.decode(source[:-1]))
    assert len(seen) == len(set(seen)) == data.metadata["splits"]["train"]["rows"]


def test_splits_are_disjoint_make_up_the_rows_and_stay_when_rows_are_added(rows):
    content, _ = example("classifier")

    def texts(content) -> dict[str, set[str]]:
        data = prepare_task(*_with_task(rows(content, tokenizer={"kind": "char"}), "classifier"))
        found = {}
        for name in ("train", "validation", "test"):
            batches = getattr(data, name).batches(50)
            found[name] = {
                data.tokenizer.decode(ids[mask == 1].tolist()).rstrip("\n")
                for batch in batches
                for ids, mask in zip(batch["input_ids"], batch["attention_mask"])
            }
        return found

    before = texts(content)
    assert set.union(*before.values()) == {row["text"] for row in content}
    assert sum(map(len, before.values())) == len(content)
    more = [{"text": text, "label": "none"} for text in sentences(400) if text not in {row["text"] for row in content}]
    after = texts([*more, *content[::-1]])
    assert all(before[name] <= after[name] for name in before)


def test_rows_of_one_group_stay_together(rows):
    content = [{"text": text, "label": str(at % 2), "who": str(at % 40)} for at, text in enumerate(sentences(400))]
    config, root = rows(content, group="who")
    data = prepare_task(config, "classifier", root)
    # 40 groups of 10 rows each: no split holds a part of one
    assert all(data.metadata["splits"][name]["rows"] % 10 == 0 for name in ("train", "validation", "test"))


def test_splits_of_the_source_are_used_as_they_are_and_only_what_lacks_is_made(tmp_path):
    texts = sentences(130)
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    parts = {"train": texts[:100], "validation": texts[100:110]}
    folder = DatasetDict({
        name: Dataset.from_dict({"text": part, "label": [at % 2 for at in range(len(part))]}, features)
        for name, part in parts.items()
    })  # fmt: skip
    folder.save_to_disk(tmp_path / "saved")
    config = TaskDataConfig(source=str(tmp_path / "saved"), tokenizer=WORDPIECE, splits=(0.8, 0.1, 0.1))
    data = prepare_task(config, "classifier", tmp_path / "data")
    sizes = {name: size["rows"] for name, size in data.metadata["splits"].items()}
    assert data.metadata["splits_made"] == ["test"]
    assert sizes["validation"] == 10
    assert sizes["train"] + sizes["test"] == 100
    assert sizes["test"] > 0
    assert data.classes == ("no", "yes")
    labels = torch.cat([batch["labels"] for batch in data.validation.batches(4)])
    assert labels.tolist() == [0, 1] * 5


def test_a_test_split_without_labels_is_not_used_and_noted(tmp_path):
    folder = tmp_path / "glue"
    folder.mkdir()
    for name, label in (("train", None), ("validation", None), ("test", -1)):
        content = [
            {"text": text, "label": at % 2 if label is None else label}
            for at, text in enumerate(sentences(60, len(name)))
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    config = TaskDataConfig(source=str(folder), tokenizer=WORDPIECE, splits=(0.8, 0.1, 0.1))
    data = prepare_task(config, "classifier", tmp_path / "data")
    assert data.classes == ("0", "1")
    assert any("60 rows has no labels" in note for note in data.metadata["notes"])
    assert data.metadata["splits_made"] == ["test"]


def test_duplicates_are_counted_dropped_or_refused(tmp_path):
    texts = sentences(120)
    long = [text for text in texts if len(text.split()) >= 12][:5]
    folder = tmp_path / "parts"
    folder.mkdir()
    parts = {
        "train": texts[:100],
        "validation": [*texts[100:], *texts[:3], *(f"{text} amen".upper() for text in long)],
        "test": ["nothing like the others here at all", texts[100]],
    }
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in part))
    known = set(texts[:100])
    near = sum(text in known for text in long)  # 8 or more of their shingles, and one new: at least 8/9 are there
    fields = {"source": str(folder), "tokenizer": WORDPIECE, "packed": False}
    data = prepare_task(TaskDataConfig(**fields), "masked_lm", tmp_path / "data")
    validation, test = data.metadata["duplicates"]["between"]
    assert (validation["exact"], test["exact"], test["also in"]) == (3, 1, "train or validation")
    assert validation["near"] >= near > 0
    assert data.metadata["splits"]["validation"]["rows"] == 28
    dropped = prepare_task(TaskDataConfig(**fields, duplicates="drop"), "masked_lm", tmp_path / "data")
    assert dropped.metadata["splits"]["validation"]["rows"] == 28 - 3 - validation["near"]
    assert dropped.metadata["splits"]["test"]["rows"] == 1
    with pytest.raises(CorpusError, match="rows of validation, 3 are in train exactly .* duplicates=drop"):
        prepare_task(TaskDataConfig(**fields, duplicates="fail"), "masked_lm", tmp_path / "data")


def test_texts_are_cut_at_max_length_and_counted(rows):
    content = [
        {"text": " ".join(WORDS[at % 14] for at in range(number)), "label": str(number % 2)} for number in range(1, 61)
    ]
    config, root = rows(content, max_length=20)
    data = prepare_task(config, "classifier", root)
    cut = sum(size["truncated"] for size in data.metadata["splits"].values())
    assert cut == 60 - 18  # every word is one token by itself, and two of the 20 places are marks
    batches = [batch for name in ("train", "validation", "test") for batch in getattr(data, name).batches(10)]
    assert max(batch["input_ids"].shape[1] for batch in batches) == 20
    for batch in batches:
        last = batch["attention_mask"].sum(1) - 1
        assert set(batch["input_ids"][torch.arange(len(last)), last].tolist()) == {3}  # [SEP] ends what is cut too


def test_spans_rebuild_the_packed_text(rows):
    content, fields = example("spans")
    data = prepare_task(*_with_task(rows(content, **fields), "seq2seq"))
    text = []
    for batch in data.validation.batches(4):
        for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"]):
            source, target = ids[mask == 1].numpy(), labels[labels != -100].numpy()
            text += rebuild(source[:-1], target[:-1], sentinels=data.special.sentinels).tolist()
    lines = data.tokenizer.decode(text).splitlines()
    assert len(lines) == data.metadata["splits"]["validation"]["rows"]
    assert set(lines) <= {row["text"] for row in content}


def test_a_pair_of_texts_is_one_row(rows):
    content = [{"text": text, "other": text.split()[0], "label": str(len(text) % 2)} for text in sentences(100)]
    config, root = rows(content, second="other")
    data = prepare_task(config, "classifier", root)
    row = next(data.train.batches(1))["input_ids"][0].tolist()
    assert (row[0], row[-1], row.count(3)) == (2, 3, 2)  # [CLS] ... [SEP] ... [SEP]
    middle = row.index(3)
    assert data.tokenizer.decode(row[1:middle]).split()[0] == data.tokenizer.decode(row[middle + 1 : -1])


def test_a_prefix_stands_before_each_source_and_no_target(rows):
    content, fields = example("seq2seq")
    data = prepare_task(*_with_task(rows(content, **fields, prefix="reverse: "), "seq2seq"))
    batch = next(data.train.batches(4))
    assert all(data.tokenizer.decode(ids.tolist()).startswith("reverse: ") for ids in batch["input_ids"])
    assert not any("reverse" in data.tokenizer.decode(ids.clamp(min=0).tolist()) for ids in batch["labels"])


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A Hugging Face tokenizer of WORDS in a folder."""
    ours = WordPieceTokenizer.train("\n".join(sentences(200)), 300)
    folder = tmp_path_factory.mktemp("words")
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    PreTrainedTokenizerFast(tokenizer_object=ours.inner, **names).save_pretrained(folder)
    return folder


def test_rows_that_are_tokenised_already_are_taken_as_they_are(tmp_path, words):
    ours = [[2, 5 + at % 9, 7, 3] for at in range(99)]
    padded = [[*ids, 0, 0] for ids in ours]
    mask = [[1, 1, 1, 1, 0, 0]] * 99
    columns = {"input_ids": padded, "attention_mask": mask, "label": [at % 2 for at in range(99)]}
    Dataset.from_dict(columns).save_to_disk(tmp_path / "ids")
    config = TaskDataConfig(
        source=str(tmp_path / "ids"), tokenizer={"kind": "hf", "name": str(words)}, splits=(0.5, 0.5, 0.0), split_seed=1
    )
    data = prepare_task(config, "classifier", tmp_path / "data")
    found = [
        ids.tolist()
        for split in (data.train, data.validation)
        for batch in split.batches(9)
        for ids in batch["input_ids"]
    ]
    assert sorted(found) == sorted(ours)
    with pytest.raises(CorpusError, match="tokenised already, and rows.tokenizer.kind=wordpiece"):
        prepare_task(config.replace(tokenizer=WORDPIECE | {"name": None}), "classifier", tmp_path / "data")


def test_an_id_outside_the_vocabulary_is_named(tmp_path, words):
    Dataset.from_dict({"input_ids": [[5]] * 50 + [[4000]]}).save_to_disk(tmp_path / "ids")
    config = TaskDataConfig(
        source=str(tmp_path / "ids"), tokenizer={"kind": "hf", "name": str(words)}, splits=(0.5, 0.5, 0)
    )
    with pytest.raises(CorpusError, match="row 51: id 4000 is outside the tokenizer's vocabulary|gave the .* none"):
        prepare_task(config, "masked_lm", tmp_path / "data")


def test_a_folder_that_prepare_left_serves_the_language_tasks(tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(sentences(300)))
    first = prepare(
        DataConfig(corpus=str(tmp_path / "words.txt"), tokenizer={"kind": "t5", "vocab_size": 400}), tmp_path
    )
    config = TaskDataConfig(source=str(first.folder), block_size=32)
    data = prepare_task(config, "causal_lm", tmp_path)
    assert same(list(data.train.batches(4, seed=0)), list(TokenBlocks(first.train.tokens, 32, 1, 1).batches(4, seed=0)))
    spans = prepare_task(config.replace(target=None), "seq2seq", tmp_path)
    assert set(next(spans.train.batches(4, seed=0))) > {"decoder_input_ids"}
    assert len({data.fingerprint, spans.fingerprint, first.fingerprint}) == 3
    with pytest.raises(CorpusError, match="packed text without rows, which classifier cannot use"):
        prepare_task(config, "classifier", tmp_path)
    with pytest.raises(CorpusError, match="masked_lm needs a mask token"):
        prepare_task(config, "masked_lm", tmp_path)


def test_equal_rows_and_settings_make_one_folder_and_any_other_another(rows, tmp_path):
    content, _ = example("classifier", 100)
    config, root = rows(content)
    first = prepare_task(config, "classifier", root)
    (tmp_path / "moved.jsonl").write_text("\n".join(map(json.dumps, content)))
    moved = config.replace(source=str(tmp_path / "moved.jsonl"))
    assert prepare_task(moved, "classifier", root).fingerprint == first.fingerprint
    others = [
        prepare_task(config.replace(max_length=9), "classifier", root),
        prepare_task(config.replace(split_seed=1), "classifier", root),
        prepare_task(config, "masked_lm", root),
        prepare_task(rows([*content, {"text": "one more", "label": "none"}])[0], "classifier", root),
    ]
    assert len({data.fingerprint for data in (first, *others)}) == 5


def test_a_preparation_that_fails_leaves_nothing(rows):
    content, _ = example("classifier", 100)
    config, root = rows(content, tokenizer=T5)
    with pytest.raises(CorpusError, match="masked_lm needs a mask token, and the tokenizer \\(kind=t5\\) has none"):
        prepare_task(config, "masked_lm", root)
    assert not root.exists() or list(root.iterdir()) == []


A, B = {"text": "a", "label": "x"}, {"text": "b", "label": "y"}
MISFITS = [
    ("classifier", [A, {**B, "text": 3}], {}, r"rows\.jsonl, line 2: text is 3, a int; expected text"),
    ("classifier", [A, {"text": "b"}], {}, r"line 2: label is None; expected a class"),
    ("classifier", [{**A, "label": 0.5}, B], {}, r"line 1: label is 0\.5; expected a class"),
    ("classifier", [A, A, A], {}, "holds 'x'; a classifier needs two classes"),
    (
        "classifier",
        [A, {**B, "label": "z"}],
        {"classes": ("x", "y")},
        r"line 2: the label 'z' .* of the 2 classes: x, y",
    ),
    ("classifier", [A, B], {"text": "words"}, r"no column 'words'; its columns: text, label\. .*rows\.text=text "),
    ("classifier", [{**A, "text": " "}, {**B, "text": None}], {}, "the column 'text' is empty in all 2 rows"),
    ("seq2seq", [A], {}, "no column 'target'"),
    ("seq2seq", [{"text": "a", "target": "b"}], {"tokenizer": {"kind": "char"}}, "gave the .* split none"),
    ("masked_lm", [{"text": ["a", 1]}], {}, r"line 1: text is \['a', 1\], a list; expected text \(or a list of token"),
]


@pytest.mark.parametrize(("task", "content", "fields", "message"), MISFITS)
def test_a_row_that_does_not_fit_is_named_with_what_was_expected(rows, task, content, fields, message):
    config, root = rows(content, **fields)
    with pytest.raises(CorpusError, match=message):
        prepare_task(config, task, root)


def test_a_label_of_validation_that_train_does_not_have_is_named(tmp_path):
    for name, label in (("train", "b"), ("validation", "c")):
        (tmp_path / f"{name}.csv").write_text(f"text,label\nx,a\ny,{label}\n")
    with pytest.raises(CorpusError, match=r"validation\.csv, line 3: the label 'c' is not one of the 2 classes: a, b"):
        prepare_task(TaskDataConfig(source=str(tmp_path)), "classifier", tmp_path / "data")


def test_rows_without_text_are_left_out_and_counted(rows):
    content, _ = example("classifier", 100)
    config, root = rows(
        [*content, {"text": "  ", "label": "none"}, {"text": None, "label": "none"}], splits=(0.8, 0.2, 0)
    )
    data = prepare_task(config, "classifier", root)
    sizes = data.metadata["splits"]
    assert sizes["train"]["rows"] + sizes["validation"]["rows"] == 100
    assert sizes["train"]["empty"] == 2
    assert (data.test.targets, list(data.test.batches(4))) == (0, [])


def test_numbered_classes_are_sorted_by_their_size(rows):
    content = [{"text": text, "label": at % 12} for at, text in enumerate(sentences(120))]
    data = prepare_task(*_with_task(rows(content), "classifier"))
    assert data.classes == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("seq2seq", {"tokenizer": T5, "target": None, "block_size": 4000}, "need 201 sentinels, .* has 100"),
        (
            "seq2seq",
            {"tokenizer": WORDPIECE, "target": None},
            "sentinels, and the tokenizer .* has 0; use rows.tokenizer.kind=t5",
        ),
    ],
)
def test_spans_that_the_tokenizer_has_no_sentinels_for_are_refused(rows, task, fields, message):
    content, _ = example("spans")
    with pytest.raises(CorpusError, match=message):
        prepare_task(*_with_task(rows(content, **fields), task))


def test_data_show_themselves(prepared):
    shown = prepared._repr_html_()
    assert f"for {prepared.task}" in shown
    assert f"{prepared.train.targets:,}" in shown
    assert prepared.config.longest(prepared.task) >= max(
        batch["input_ids"].shape[1] for batch in prepared.train.batches(16, seed=0)
    )
