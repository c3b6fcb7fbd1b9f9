"""Prepared corpora: splits, files on disk, and the order and content of batches."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from utils.data.loaders import SPLITS, DataConfig, TokenBlocks, prepare, preview, split_text
from utils.data.text import CorpusError

WORDS = "".join(f"{number} is {number * number} squared;\n" for number in range(200))


def blocks(length: int, block_size: int) -> TokenBlocks:
    """Token t is the number t: a label shows which token it is."""
    return TokenBlocks(np.arange(length, dtype=np.uint16), block_size, length, length)


def same(left: list[dict], right: list[dict]) -> bool:
    return len(left) == len(right) and all(torch.equal(a[key], b[key]) for a, b in zip(left, right) for key in a)


@pytest.fixture
def corpus(tmp_path):
    """Write a text, and give the config and root that prepare it."""

    def write(text: str, **fields) -> tuple[DataConfig, object]:
        path = tmp_path / "words.txt"
        path.write_text(text, encoding="utf-8", newline="")
        return DataConfig(corpus=str(path), **{"block_size": 8, **fields}), tmp_path / "data"

    return write


@pytest.mark.parametrize("seed", [None, 0, 3])
@pytest.mark.parametrize(
    ("length", "block_size"), [(2, 1), (9, 8), (10, 8), (64, 8), (65, 8), (66, 8), (300, 7), (9, 50)]
)
def test_an_epoch_has_every_token_but_the_first_as_a_target_once_after_the_token_before(length, block_size, seed):
    for epoch in range(4):
        targets = []
        for batch in blocks(length, block_size).batches(3, seed=seed, epoch=epoch):
            ids, labels = batch["input_ids"], batch["labels"]
            assert ids.dtype == labels.dtype == torch.int64
            assert ids.shape == labels.shape == (len(ids), block_size)
            real = labels != -100
            assert torch.equal(labels[real], ids[real] + 1)  # label t is the token after input t
            for row, count in zip(ids, real.sum(1)):
                assert torch.equal(row[:count], torch.arange(row[0], row[0] + count))  # a piece of the text, no gaps
                assert count > 0
            targets += labels[real].tolist()
        assert sorted(targets) == list(range(1, length))


def test_without_a_seed_batches_follow_the_text():
    ids = torch.cat([batch["input_ids"] for batch in blocks(65, 8).batches(3)])
    assert ids.flatten().tolist() == list(range(64))


def test_the_order_is_a_function_of_seed_and_epoch():
    data = blocks(500, 8)
    order = {(seed, epoch): list(data.batches(4, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    for key, batches in order.items():
        again = list(blocks(500, 8).batches(4, seed=key[0], epoch=key[1]))
        assert same(again, batches)
        assert not any(same(batches, other) for other_key, other in order.items() if other_key != key)


def test_starting_at_a_batch_goes_on_with_the_very_sequence():
    data = blocks(203, 8)
    for seed, epoch in ((None, 0), (5, 0), (5, 3)):
        whole = list(data.batches(4, seed=seed, epoch=epoch))
        assert len(whole) == data.num_batches(4, seed=seed, epoch=epoch)
        for start in range(len(whole) + 1):
            assert same(list(data.batches(4, seed=seed, epoch=epoch, start=start)), whole[start:])


def test_cuts_between_rows_move_from_epoch_to_epoch():
    firsts = {
        int(ids[0]) % 16
        for epoch in range(8)
        for batch in blocks(200, 16).batches(4, seed=0, epoch=epoch)
        for ids in batch["input_ids"]
        if ids[0] > 0
    }
    assert len(firsts) > 1


@pytest.mark.parametrize("shares", [(0.9, 0.05, 0.05), (0.5, 0.5, 0.0), (0.7, 0.1, 0.2)])
@pytest.mark.parametrize("length", [20, 21, 997, 1000])
def test_splits_are_contiguous_parts_of_their_shares_that_make_up_the_text(length, shares):
    text = "".join(map(chr, range(1000, 1000 + length)))  # no two characters alike, so an overlap would show
    parts = split_text(text, shares)
    assert tuple(parts) == SPLITS
    assert "".join(parts.values()) == text
    for part, share in zip(parts.values(), shares):
        assert abs(len(part) - share * length) <= 1


@pytest.mark.parametrize("tokenizer", [{"kind": "char"}, {"kind": "bpe", "vocab_size": 280}], ids=["char", "bpe"])
def test_a_folder_holds_memory_mapped_tokens_and_metadata_that_say_what_they_are(corpus, tokenizer):
    config, root = corpus(WORDS, tokenizer=tokenizer)
    data = prepare(config, root)
    names = {path.name for path in data.folder.iterdir()}
    assert names == {"metadata.json", "tokenizer.json", *(f"{name}.tokens.bin" for name in SPLITS)}
    facts = data.metadata
    assert facts["source"] == config.corpus
    assert len(facts["sha256"]) == 64
    assert facts["vocab_size"] == data.tokenizer.vocab_size
    assert facts["tokenizer"] == config.tokenizer.model_dump()
    assert "".join(data.tokenizer.decode(getattr(data, name).tokens) for name in SPLITS) == WORDS
    for name in SPLITS:
        split, size = getattr(data, name), facts["splits"][name]
        assert isinstance(split.tokens, np.memmap)
        raw = np.fromfile(data.folder / f"{name}.tokens.bin", "<u2")  # nothing but the ids: no pickle, no header
        np.testing.assert_array_equal(raw, split.tokens)
        assert size == {"tokens": len(raw), "characters": split.characters, "bytes": split.bytes}
        assert split.units["character"] == pytest.approx(len(data.tokenizer.decode(raw)) / len(raw))


@pytest.mark.parametrize(("characters", "itemsize"), [(2**16, 2), (2**16 + 1, 4)])
def test_ids_take_two_bytes_up_to_65536_entries_and_four_beyond(corpus, characters, itemsize):
    points = [point for point in range(0x20, 0x20000) if not 0xD800 <= point < 0xE000][:characters]
    text = "".join(map(chr, points))
    data = prepare(*corpus(text))
    assert data.metadata["vocab_size"] == characters
    assert data.train.tokens.itemsize == itemsize
    assert data.tokenizer.decode(data.test.tokens) == text[-len(data.test.tokens) :]


def test_bpe_knows_only_the_merges_of_the_training_split(corpus):
    text = "the cat sat. " * 100 + "zebraquux. " * 100
    tokenizer = {"kind": "bpe", "vocab_size": 300}

    def longest(data) -> int:
        return max(len(data.tokenizer.decode([index]).strip()) for index in data.tokenizer.encode("zebraquux"))

    assert longest(prepare(*corpus(text, tokenizer=tokenizer, splits=(0.5, 0.25, 0.25)))) == 1
    assert longest(prepare(*corpus(text, tokenizer=tokenizer, splits=(0.9, 0.05, 0.05)))) > 1


def test_preparing_again_opens_the_same_folder_and_any_other_choice_makes_another(corpus):
    config, root = corpus(WORDS)
    first = prepare(config, root)
    written = (first.folder / "metadata.json").stat().st_mtime_ns
    again = prepare(config, root)
    assert (again.folder, again.fingerprint) == (first.folder, first.fingerprint)
    assert (first.folder / "metadata.json").stat().st_mtime_ns == written
    others = [
        prepare(config.replace(splits=(0.8, 0.1, 0.1)), root),
        prepare(config.replace(tokenizer={"byte_fallback": True}), root),
        prepare(config.replace(block_size=9), root),  # the same tokens, other rows
        prepare(*corpus(WORDS + "!")),
    ]
    assert others[2].folder == first.folder
    assert len({data.fingerprint for data in (first, *others)}) == 5


# Validation is ten of a hundred characters, or none of twelve: 12 * 0.96 and 12 * 0.98 both round to 12.
@pytest.mark.parametrize(
    ("length", "splits", "block_size", "split"),
    [
        (100, (0.8, 0.1, 0.1), 10, "validation"),
        (100, (0.1, 0.8, 0.1), 50, "train"),
        (12, (0.96, 0.02, 0.02), 2, "validation"),
    ],
)
def test_a_split_shorter_than_a_block_and_its_next_token_is_refused(corpus, length, splits, block_size, split):
    with pytest.raises(CorpusError, match=rf"The {split} split of .* has \d+ tokens, fewer than .* {block_size} and"):
        prepare(*corpus(WORDS[:length], splits=splits, block_size=block_size))


def test_a_split_of_one_block_is_enough_and_no_test_split_is_allowed(corpus):
    data = prepare(*corpus(WORDS[:100], splits=(0.9, 0.1, 0.0), block_size=9))
    assert (data.validation.targets, data.test.targets) == (9, 0)
    assert list(data.test.batches(4)) == []


@pytest.mark.parametrize("splits", [(0.9, 0.05, 0.1), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (1.1, -0.2, 0.1)])
def test_shares_that_make_no_three_splits_are_refused(splits):
    with pytest.raises(ValueError, match="must add up to 1; only the test share may be 0"):
        DataConfig(splits=splits)


PREPARE = """
import sys, time
from pathlib import Path
from utils.data.loaders import DataConfig, prepare
name, root = sys.argv[1], Path(sys.argv[2])
(root / f"ready{name}").touch()
while not all((root / f"ready{other}").exists() for other in "01"):
    time.sleep(0.001)
config = DataConfig(tokenizer={"kind": "bpe", "vocab_size": 300})  # python-docs takes a while: the two overlap
print(prepare(config, root / "data").fingerprint)
"""


def test_processes_and_threads_that_prepare_one_folder_at_once_all_succeed(tmp_path):
    commands = [[sys.executable, "-c", PREPARE, name, str(tmp_path)] for name in "01"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    prints = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (folder,) = (tmp_path / "data").iterdir()  # one result, nothing half-made beside it
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: prepare(DataConfig(), tmp_path / "data"), range(8)))
    assert len(prints) == len({data.fingerprint for data in made}) == 1
    assert set((tmp_path / "data").iterdir()) == {folder, made[0].folder}


def test_a_preview_shows_what_is_read_and_what_follows(corpus):
    data = prepare(*corpus(WORDS))
    table = preview(next(data.train.batches(2)), data.tokenizer)
    assert table["input"].tolist() == [WORDS[0:8], repr(WORDS[8:16])[1:-1]]
    assert table["then"].tolist() == [repr(WORDS[8])[1:-1], repr(WORDS[16])[1:-1]]
    assert table["targets"].tolist() == [8, 8]


def test_a_token_file_that_was_cut_short_is_refused(corpus):
    config, root = corpus("abc def\n" * 100)
    folder = prepare(config, root).folder
    with (folder / "train.tokens.bin").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(CorpusError, match="holds 50 tokens"):
        prepare(config, root)


def test_units_are_those_that_are_known_and_an_empty_split_has_none():
    tokens = np.arange(10, dtype=np.uint16)
    assert TokenBlocks(tokens, 4, 25, 30).units == {"character": 2.5, "byte": 3.0}
    assert TokenBlocks(tokens, 4, 0, 0).units == {}  # rows that came as ids
    assert TokenBlocks(tokens[:0], 4, 0, 0).units == {}


def test_data_read_by_a_saved_tokenizer_are_named_by_what_is_in_it_not_by_where_it_lies(corpus, tmp_path):
    learned = prepare(*corpus(WORDS, tokenizer={"kind": "bpe", "vocab_size": 300}))
    found = []
    for name in ("here", "there"):
        learned.tokenizer.save((tmp_path / name).mkdir() or tmp_path / name)
        config, root = corpus(WORDS, tokenizer={"kind": "saved", "name": str(tmp_path / name)})
        found.append(prepare(config, root))
    assert found[0].folder == found[1].folder != learned.folder
    assert np.array_equal(found[0].train.tokens, learned.train.tokens)
