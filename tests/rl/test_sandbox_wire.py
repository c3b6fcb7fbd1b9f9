"""The bytes between the trainer, the zygote and a program: all come back as they went, and no others are believed."""

import os
import signal

import numpy as np
import pytest

from utils.rl import wire
from utils.rl.outcome import outcome
from utils.rl.worker import Answer

LOADED = bytes((0,))


def test_a_job_comes_back_as_it_went():
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, 10, rng.integers(1, 31, 2), dtype=np.uint8) for _ in range(50)]
    raw = [(*grid.shape, grid.tobytes()) for grid in grids]
    for program in ("", "def solve(grid): ...", "# é 🙂 \0", "\ud800"):
        assert wire.unpack_job(wire.pack_job(program, raw)) == (program, [grid.tolist() for grid in grids])


def test_records_come_back_as_they_went_and_a_cut_one_is_left_out():
    rng = np.random.default_rng(0)
    for _ in range(200):
        records, packed = [None], [LOADED]
        for _ in range(rng.integers(0, 6)):
            if rng.random() < 0.5:
                grid = rng.integers(0, 10, rng.integers(1, 31, 2), dtype=np.uint8)
                records.append((*grid.shape, grid.tobytes()))
                packed.append(wire.pack_grid(grid.tolist()))
            else:
                line = int(rng.integers(0, 99)) or None
                records.append((str(rng.choice(wire.KINDS)), line, "x" * int(rng.integers(0, wire.MESSAGE + 1))))
                packed.append(wire.pack_fault(*records[-1]))
        raw = b"".join(packed)
        assert len(raw) <= wire.limit(len(records) - 1)
        assert wire.unpack_records(raw, len(records) - 1) == records
        for cut in {0, 1, len(raw) // 2, len(raw) - 1}:
            ends = np.cumsum([len(part) for part in packed])
            assert wire.unpack_records(raw[:cut], len(records)) == records[: int((ends <= cut).sum())]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (bytes((99,)), "a record of kind 99"),
        (bytes((1, 1, 1, 3)), "out of order"),
        (LOADED + LOADED, "out of order"),
        (LOADED + bytes((1, 0, 5)), "outside the bounds"),
        (LOADED + bytes((1, 31, 1)) + bytes(31), "outside the bounds"),
        (LOADED + bytes((1, 1, 1, 10)), "outside the bounds"),
        (LOADED + bytes((1, 1, 1, 3)) * 3, "more than 3 records"),
        (wire.pack_fault("syntax", 1, "x") + LOADED, "out of order"),
        (wire.pack_fault("syntax", 1, "x") + bytes((1, 1, 1, 3)), "out of order"),
        (LOADED + bytes((2,)) + (0).to_bytes(4, "little") + (9999).to_bytes(2, "little"), "a message of 9999 bytes"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_records_are_a_bad_output(raw, said):
    with pytest.raises(wire.WireError, match=said):
        wire.unpack_records(raw, 2)
    came = outcome(Answer(wire.ENDED, 0, 0.1, raw), 2, 9)
    assert came.outputs == (None, None)
    assert came.error.kind == "bad_output"
    assert said in came.error.message


def test_no_bytes_whatever_make_anything_but_grids_and_faults():
    """20,000 random strings, half of them records with some bytes changed."""
    rng = np.random.default_rng(0)
    whole = LOADED + wire.pack_grid([[1, 2], [3, 4]]) + wire.pack_fault("runtime", 7, "message") + wire.pack_grid([[5]])
    for turn in range(20000):
        raw = bytearray(whole if turn % 2 else rng.integers(0, 12, rng.integers(0, 60), dtype=np.uint8).tobytes())
        for at in rng.integers(0, len(raw), 2) if raw else ():
            raw[at] = rng.integers(0, 256)
        came = outcome(Answer(wire.ENDED, 0, 0.0, bytes(raw)), 3, 9)
        assert len(came.outputs) == len(came.faults) == 3
        for output, fault in zip(came.outputs, came.faults):
            assert (output is None) != (fault is None)
            if fault is not None:
                assert fault.kind in wire.KINDS
                assert len(fault.message) <= 999
            else:
                assert output.dtype == np.uint8
                assert output.max() <= 9
                assert all(1 <= side <= 30 for side in output.shape)


@pytest.mark.parametrize(
    ("how", "status", "kind", "said"),
    [
        (wire.OVERDUE, signal.SIGKILL, "timeout", "killed after 0.50 s"),
        (wire.TOO_LONG, signal.SIGKILL, "bad_output", "more than 1 bytes"),
        (wire.ENDED, 0, "forbidden", "ended its own process"),
        (wire.ENDED, 3 << 8, "forbidden", "ended its own process"),
        (wire.ENDED, signal.SIGSYS, "forbidden", "seccomp"),
        (wire.ENDED, signal.SIGXCPU, "timeout", "processor time"),
        (wire.ENDED, signal.SIGKILL, "memory", "runs out"),
        (wire.ENDED, signal.SIGSEGV, "runtime", "SIGSEGV"),
        (wire.ENDED, 60, "runtime", "crashed"),
    ],
)
def test_how_a_process_ended_says_which_fault_it_was(how, status, kind, said):
    assert os.WIFSIGNALED(status) == (status not in (0, 3 << 8))
    came = outcome(Answer(how, int(status), 0.5, LOADED), 1, 9)
    assert came.error.kind == kind
    assert said in came.error.message
    assert came.error == came.faults[0]


@pytest.mark.parametrize(
    "grid", [None, [], [[]], [[1, 2], [3]], [[True]], [[1.0]], [[10]], [[-1]], [[1] * 31], [[1]] * 31, "12", [1]]
)
def test_what_is_no_grid_is_not_packed(grid):
    with pytest.raises(ValueError, match="expected|outside"):
        wire.pack_grid(grid)
