"""`Rows`: how many rows go through the model at once, halved whenever memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from utils.core import repro
from utils.core.run import RunError
from utils.training.objectives import Batch, micro_batches

log = logging.getLogger(__name__)
T = TypeVar("T")
REFUSALS = (
    "DefaultCPUAllocator",  # torch's on a CPU
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",  # cuBLAS's workspace, beside torch's allocator
    "CUDA out of memory",  # of libraries that raise a plain RuntimeError
)


class OutOfMemory(RunError):
    """One row alone is too much, or several processes would have to agree on fewer."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocator refused."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in REFUSALS)


class Rows:
    """The most rows of a batch that go through the model at once; None: all of them. It only ever falls."""

    def __init__(self, most: int | None, what: str, *, processes: int = 1):
        """`what` goes through the model, for the messages. `processes` that have to cut their batches alike."""
        self.most, self.what, self.processes = most, what, processes
        self.halved = False

    def lower(self, rows: int) -> None:
        """Take up what an earlier session came to; 0 is nothing."""
        if rows and (self.most is None or rows < self.most):
            self.most, self.halved = rows, True

    def run(self, batch: Batch, work: Callable[[list[Batch]], T], undo: Callable[[], None]) -> T:
        """`work` on the micro-batches of a batch; again on smaller ones, after `undo`, where memory runs out.

        Each try begins with the generators in the same state. Raises `OutOfMemory` where one row is too much.
        """
        generators = repro.rng_state()
        while True:
            try:
                return work(micro_batches(batch, self.most))
            except Exception as error:
                if not out_of_memory(error):
                    raise
                refusal = str(error).split("\n")[0] or type(error).__name__
            # Here, after the handler, nothing holds the frames of the failed try and the activations in them.
            undo()
            repro.set_rng_state(generators)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._halve(len(next(iter(batch.values()))), refusal)

    def _halve(self, rows: int, refusal: str) -> None:
        came = rows if self.most is None else min(rows, self.most)
        fewer = -(-came // 2)
        if came == 1:
            raise OutOfMemory(
                f"Out of memory with one row of {self.what}: {refusal}. Take shorter rows, a smaller model, bf16,"
                " train.gradient_checkpointing=true, or a device with more memory."
            )
        if self.processes > 1:
            raise OutOfMemory(
                f"Out of memory with {came} rows of {self.what}: {refusal}. Several processes cannot change that by"
                f" themselves while they wait for each other: set train.micro_batch_size={fewer}, in a new run or a"
                " branch."
            )
        self.most, self.halved = fewer, True
        log.warning(
            "Out of memory with %d rows of %s at once (%s). From here on %d at once, twice as often: a step has the"
            " same rows and the same gradient, and is done again.", came, self.what, refusal, fewer,
        )  # fmt: skip


def device_name(device: torch.device) -> str:
    """Which device a number of rows was found on; another one may take more."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
