"""What accompanies the loop: signals, the progress bar, printed samples."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from torch import nn

from utils.core import jsonl
from utils.models.generate import SamplingConfig, generate

if TYPE_CHECKING:
    from utils.core.run import Run
    from utils.data.tokenizers import Tokenizer

log = logging.getLogger(__name__)
Sampler = Callable[[nn.Module, int], str]


class Interrupts:
    """Holds back SIGINT and SIGTERM, so that a step is finished and saved before they act.

    `received` is the signal, if one came; another one, later than a launcher's echo of the first, acts at once. On
    leaving, the handlers are as before; `deliver` then lets the signal act. Outside the main thread signals are not
    touched.
    """

    ECHO_SECONDS = 1.0

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._at = 0.0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._at = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._at > self.ECHO_SECONDS:
            self.__exit__()
            signal.raise_signal(number)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def deliver(self) -> None:
        if self.received is not None:
            signal.raise_signal(self.received)


@contextlib.contextmanager
def before_the_first_step() -> Iterator[None]:
    """Within it, SIGINT and SIGTERM are told in the log before they act; there is nothing to finish and save first."""
    before: dict[signal.Signals, object] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        log.warning("Interrupted before the first step of this session; run the same again to begin.")
        put_back()
        signal.raise_signal(number)

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        before.clear()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, tell)
    try:
        yield
    finally:
        put_back()


def progress_bar(total: int, done: int, *, unit: str = "step", disable: bool = False):
    """A text bar on stdout, which every front end and a log can show."""
    from tqdm import tqdm

    return tqdm(
        total=total, initial=done, unit=unit, file=sys.stdout, disable=disable, dynamic_ncols=True, mininterval=0.5
    )


@contextlib.contextmanager
def lines_above_bars() -> Iterator[None]:
    """Within it, lines that the root logger writes to the console stand above progress bars, each on a line of its own.

    The handlers stay what they are, with their formats, levels and filters.
    """
    from tqdm import tqdm

    consoles = (sys.stdout, sys.stderr)
    handlers = [one for one in logging.getLogger().handlers if getattr(one, "stream", None) in consoles]

    def above(handler: logging.StreamHandler, emit: Callable[[logging.LogRecord], None]):
        def write(record: logging.LogRecord) -> None:
            with tqdm.external_write_mode(file=handler.stream):
                emit(record)

        return write

    for handler in handlers:
        handler.emit = above(handler, handler.emit)
    try:
        yield
    finally:
        for handler in handlers:
            vars(handler).pop("emit", None)  # that of its class again


def text_sampler(run: Run, tokenizer: Tokenizer, config: SamplingConfig, prompt: str = "") -> Sampler:
    """A sampler that continues `prompt`, and keeps each text in the run's predictions/samples.jsonl.

    Raises at once where the tokenizer cannot take the prompt.
    """
    tokenizer.encode(prompt)

    def sample(model: nn.Module, step: int) -> str:
        text = generate(model, tokenizer, prompt, config, seed=step)
        try:
            jsonl.append(run.samples_file, {"step": step, "prompt": prompt, "text": text})
        except OSError as error:
            log.warning("The sample of step %d could not be kept: %s.", step, error)
        return text

    return sample
