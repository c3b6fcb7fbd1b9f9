"""Signals are held until asked for; samples are kept and repeatable."""

import logging
import signal
import sys
import threading

import pytest

from utils.core import jsonl
from utils.models.generate import SamplingConfig
from utils.training.callbacks import (
    Interrupts,
    before_the_first_step,
    lines_above_bars,
    progress_bar,
    text_sampler,
)


@pytest.fixture
def acted():
    """Signals that acted, in place of ending the tests."""
    acted, numbers = [], (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: acted.append(number)) for number in numbers]
    yield acted
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_held_until_delivered(number, acted):
    with Interrupts() as interrupts:
        signal.raise_signal(number)
        assert interrupts.received == number
        assert acted == []
    interrupts.deliver()
    assert acted == [number]


@pytest.mark.parametrize(("echo", "expected"), [(-1.0, [signal.SIGINT]), (3600.0, [])], ids=["later", "an echo"])
def test_second_signal_acts_at_once_unless_it_echoes_the_first(echo, expected, acted, monkeypatch):
    monkeypatch.setattr(Interrupts, "ECHO_SECONDS", echo)
    with Interrupts():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert acted == expected


def test_handlers_are_put_back_and_nothing_is_delivered_without_a_signal(acted):
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert signal.getsignal(signal.SIGTERM) is not before
    interrupts.deliver()
    assert signal.getsignal(signal.SIGTERM) is before
    assert acted == []


def test_outside_the_main_thread_signals_are_not_touched(acted):
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body():
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_is_told_and_acts_at_once(number, acted, caplog):
    with before_the_first_step():
        assert acted == []
        signal.raise_signal(number)
        assert acted == [number]
        assert "Interrupted before the first step" in caplog.text
        signal.raise_signal(number)  # the handlers are as before
    assert acted == [number] * 2
    assert caplog.text.count("before the first step") == 1


def test_nothing_is_told_of_a_signal_that_comes_after_the_first_step(acted, caplog):
    with before_the_first_step():
        pass
    signal.raise_signal(signal.SIGTERM)
    assert (acted, caplog.text) == ([signal.SIGTERM], "")


def test_a_line_of_the_log_does_not_stick_to_the_bar(capsys):
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        with progress_bar(10, 4) as bar, lines_above_bars():
            bar.refresh()
            logging.getLogger("utils").error("told")
        plain = handler.emit
        logging.getLogger("utils").error("afterwards")
    finally:
        logging.getLogger().removeHandler(handler)
    assert plain.__func__ is logging.StreamHandler.emit
    # What the terminal shows of a line is what stands behind its last carriage return.
    shown = [line.rpartition("\r")[2] for line in capsys.readouterr().out.splitlines()]
    assert [line for line in shown if "told" in line] == ["ERROR: told"]
    assert shown[-1] == "ERROR: afterwards"


def test_sample_is_a_function_of_weights_and_step_and_is_kept(new_run, data, tiny_model):
    run, model = new_run(), tiny_model()
    sample = text_sampler(run, data.tokenizer, SamplingConfig(max_new_tokens=12, temperature=1.0), prompt="ab")
    texts = [sample(model, 1), sample(model, 2), sample(model, 1)]
    assert texts[0] == texts[2] != texts[1]
    assert [len(text) for text in texts] == [12] * 3
    assert list(jsonl.read(run.samples_file)) == [
        {"step": step, "prompt": "ab", "text": text} for step, text in zip((1, 2, 1), texts)
    ]


def test_progress_bar_goes_on_from_where_training_stands(capsys):
    with progress_bar(10, 4) as bar:
        bar.update(2)
        assert (bar.n, bar.total) == (6, 10)
    assert "6/10" in capsys.readouterr().out
