"""A deadline that several runs share, by a clock that moves only when the test says so."""

import math

import pytest

from utils.core.deadline import AskedToStop, OutOfTime, check_time, current, deadline, seconds_left


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def test_without_one_there_is_no_end():
    assert current() is None
    assert seconds_left() == math.inf
    check_time()
    with deadline(None) as none:
        assert none is None
        assert seconds_left() == math.inf


def test_what_is_left_falls_from_the_hours_less_what_was_spent():
    clock = Clock()
    with deadline(0.5, spent=300, clock=clock):
        assert seconds_left() == 1500
        clock.now += 1499
        check_time()
        clock.now += 1
        with pytest.raises(OutOfTime, match=r"0\.5 hours \(max_hours\) are over"):
            check_time()
    assert current() is None
    assert issubclass(OutOfTime, AskedToStop)


def test_the_earlier_end_counts_whichever_is_outside():
    clock = Clock()
    with deadline(1, clock=clock):
        with deadline(2, clock=clock):
            assert seconds_left() == 3600
        with deadline(0.25, clock=clock):
            assert seconds_left() == 900
        with deadline(None, clock=clock):
            assert seconds_left() == 3600
        assert seconds_left() == 3600
