"""JSON lines: all of a record or nothing, torn tails, cutting back to a step."""

from pathlib import Path

import pytest

from utils.core import jsonl

RECORDS = [{"step": 1, "loss": 2.5}, {"step": 2, "text": "a\nb\r\u2028 ü"}, {"step": 2, "loss": 1.5}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for record in RECORDS:
        jsonl.append(path, record)
    return path


def test_what_is_appended_is_read_in_order(path, tmp_path):
    assert list(jsonl.read(path)) == RECORDS
    assert list(jsonl.read(tmp_path / "absent")) == []


def test_a_kill_at_any_byte_loses_the_torn_record_and_no_other(path):
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 3
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        # A record whose newline alone is missing is complete: hence `size + 1`.
        survivors = RECORDS[: sum(end <= size + 1 for end in ends)]
        assert list(jsonl.read(path)) == survivors
        jsonl.append(path, {"step": 9})
        assert list(jsonl.read(path)) == [*survivors, {"step": 9}]


def test_numbers_that_json_lacks_are_null(path):
    jsonl.append(path, {"step": 3, "a": float("nan"), "b": float("inf")})
    assert list(jsonl.read(path))[-1] == {"step": 3, "a": None, "b": None}


@pytest.mark.parametrize(("step", "count"), [(0, 0), (1, 1), (2, 3), (7, 3)])
def test_cut_keeps_the_records_up_to_the_step(path, step, count):
    jsonl.cut(path, step)
    assert list(jsonl.read(path)) == RECORDS[:count]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_cut_drops_a_torn_tail_and_needs_no_file(path, tmp_path):
    path.write_bytes(path.read_bytes() + b'{"step": 1, "lo')
    jsonl.cut(path, 1)
    assert path.read_bytes() == b'{"step": 1, "loss": 2.5}\n'
    jsonl.cut(tmp_path / "absent", 1)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_disk_that_fills_up_in_mid_line_leaves_the_file_as_it_was(path, file_size_limit, room):
    before = path.read_bytes()
    with file_size_limit(len(before) + room), pytest.raises(OSError, match="No space left|File too large"):
        jsonl.append(path, {"step": 3, "text": "x" * 100})
    assert path.read_bytes() == before
    jsonl.append(path, {"step": 3})
    assert list(jsonl.read(path)) == [*RECORDS, {"step": 3}]


def test_a_full_disk_raises():
    with pytest.raises(OSError, match="No space left"):
        jsonl.append(Path("/dev/full"), {"step": 1})
