"""What a model costs: the memory of a training step, by batch and length, and the time of a forward pass."""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.steady import Effort, untouched

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is open, as they come and go; `peak` is the most at once.

    Each storage counts once, however many views it has. What a kernel allocates and frees inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in before:
                    self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self.known:
            return
        self.known[key] = storage.nbytes()
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live -= self.known.pop(key, 0)


def step_memory(adapter: Adapter, rows: int, length: int, *, seed: int = 0) -> tuple[int, int]:
    """Bytes of a training step beyond what was there: held after the forward pass for the backward one; at the peak.

    From CUDA's allocator on a GPU; elsewhere by counting tensors (`TensorMemory`).
    """
    batch = adapter.batch(rows, length, seed=seed)
    gpu = adapter.device.type == "cuda"
    with untouched(adapter, train=True, seed=seed) as model, torch.enable_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        if gpu:
            torch.cuda.reset_peak_memory_stats(adapter.device)
            before = torch.cuda.memory_allocated(adapter.device)
        with contextlib.nullcontext() if gpu else TensorMemory() as memory:
            loss = adapter.loss(batch) if adapter.head else adapter(batch).square().mean()
            held = torch.cuda.memory_allocated(adapter.device) - before if gpu else memory.live
            if loss.requires_grad:
                loss.backward()
        return held, torch.cuda.max_memory_allocated(adapter.device) - before if gpu else memory.peak


def memory(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Memory of a training step against batch and length, with the fitted growth.

    What the forward pass holds for the backward one is fitted by c + B (a T + b T^2), least squares with no negative
    term: a is the activations of a token, b what attention keeps of a pair of tokens. Threshold: sizes over 20% off
    the fit on average warn: the memory then grows in another way than a transformer's and cannot be foreseen.
    """
    import numpy
    import pandas

    full = min(effort.full(adapter), 4 * effort.length) if adapter.text else 1
    lengths = sorted({max(1, full // 4), max(1, full // 2), full})
    grid = [(rows, length) for rows in (1, 2, 4) for length in lengths]
    sizes = numpy.array([step_memory(adapter, *point, seed=seed) for point in grid], dtype=float)  # (points, 2)
    B, T = numpy.array(grid, dtype=float).T
    terms = numpy.stack([numpy.ones_like(B), B * T, B * T * T], axis=1)[:, : 3 if len(lengths) > 2 else 2]
    factors = non_negative_fit(terms, sizes[:, 0])
    table = pandas.DataFrame(grid, columns=["batch", "length"])
    table["held MiB"], table["peak MiB"] = sizes.T / 2**20
    table["fitted MiB"] = terms @ factors / 2**20
    error = float(numpy.abs(terms @ factors / sizes[:, 0] - 1).mean())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in adapter.model.parameters())
    text = (
        f"a training step holds {factors[1] / 2**10:.1f} KiB for each {'token' if adapter.text else 'image'}"
        + (f" and {factors[2]:.0f} B for each pair of a row's tokens" if len(factors) > 2 else "")
        + f", beside {4 * weights / 2**20:.1f} MiB of weights, gradients and AdamW's moments"
    )
    figure = plot_memory(table)
    if error > 0.2:
        summary = f"{text}; but sizes are {error:.0%} off that: look for tensors that outlive a step"
        return Check("memory", "warn", summary, table, figure)
    return Check("memory", "pass", text, table, figure)


def non_negative_fit(terms: Any, values: Any) -> Any:
    """Least squares with no negative factor: the best over every choice of terms to keep (three at most)."""
    import itertools

    import numpy

    best, least = numpy.zeros(terms.shape[1]), float("inf")
    weights = 1 / values  # relative errors: the small batches count as much as the large ones
    for count in range(1, terms.shape[1] + 1):
        for kept in itertools.combinations(range(terms.shape[1]), count):
            some = terms[:, kept]
            factors = numpy.linalg.lstsq(some * weights[:, None], values * weights, rcond=None)[0]
            error = (((some @ factors - values) * weights) ** 2).sum()
            if (factors >= 0).all() and error < least:
                best, least = numpy.zeros(terms.shape[1]), error
                best[list(kept)] = factors
    return best


def plot_memory(table: pandas.DataFrame, ax: Axes | None = None) -> Figure:
    """Measured (points) and fitted (lines) memory over the length, a colour for each batch size."""
    with canvas(ax) as ax:
        for rows, part in table.groupby("batch"):
            (points,) = ax.plot(part["length"], part["held MiB"], "o", label=f"batch {rows}")
            ax.plot(part["length"], part["fitted MiB"], color=points.get_color())
        ax.set(xlabel="tokens a row", ylabel="MiB", title="Held for the backward pass: measured, and fitted (lines)")
        ax.legend()
        return ax.figure


def speed(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Median, 95th and 99th percentile of a forward pass in eval mode, and tokens (or images) a second.

    No threshold: it is a measurement, after warm-up, each call waited for. Of a few dozen calls the 99th
    percentile is near the slowest.
    """
    import numpy
    import pandas

    length = effort.length_for(adapter)
    rows = []
    with untouched(adapter, seed=seed), torch.no_grad():  # a table kept from inference_mode would break training
        for batch_size in sorted({1, effort.rows}):
            batch = adapter.batch(batch_size, length, seed=seed)
            for _ in range(3):
                adapter(batch)
            seconds = []
            for _ in range(effort.repeats):
                _wait(adapter.device)
                start = time.perf_counter()
                adapter(batch)
                _wait(adapter.device)
                seconds.append(time.perf_counter() - start)
            median, high, highest = numpy.percentile(seconds, [50, 95, 99])
            unit, count = ("tokens", batch_size * length) if adapter.text else ("images", batch_size)
            rows.append(
                {
                    "batch": batch_size,
                    "median ms": 1e3 * median,
                    "p95 ms": 1e3 * high,
                    "p99 ms": 1e3 * highest,
                    f"{unit}/s": count / median,
                }
            )
    last = rows[-1]
    text = (
        f"a batch of {last['batch']} takes {last['median ms']:.2f} ms (median of {effort.repeats}), "
        f"{last[f'{unit}/s']:,.0f} {unit}/s on {adapter.device}"
    )
    return Check("speed", "pass", text, pandas.DataFrame(rows))


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
