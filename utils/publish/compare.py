"""What a format's outputs and tensors are worth beside those of the trained model: a `Proof`, and its `Check`.

Only the places that the mask asks for are compared. Leaves out how the outputs were come by (`publish.fresh`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor

from utils.core.check import Check
from utils.models.exportable import Part
from utils.publish.parity_worker import digests

DIFFERENCE = 1e-4  # of fp32, the largest
# Of int8, from the rounding alone. A channel of weights spans about 7 of its standard deviations, and so does an
# activation: 256 steps of 7/256 have an error of 7/256/sqrt(12) = 0.8 % each, 1.1 % a product. Errors of the 4 products
# of each of 12 layers and of the head, 49, add up as the root of their number: 8 % of the outputs' spread.
SPREAD = 0.1  # the mean difference over the standard deviation of eager's outputs
AGREEMENT = 0.9  # the share of places whose likeliest class such an error leaves the same
DEPRECATED = {"torchscript": "deprecated by torch, which points to torch.export"}
SHOWN = 3  # names of tensors in a reason


@dataclass(frozen=True)
class Expected:
    """What eager PyTorch gives for one input of a part, and how long it takes."""

    part: Part
    inputs: Mapping[str, Tensor]
    output: numpy.ndarray
    latency: float
    """milliseconds"""

    @property
    def counted(self) -> numpy.ndarray:
        """Which places of the output count, over its first one or two axes."""
        axes = self.part.axes.get(self.part.output, {0: "batch"})
        counted = numpy.ones(self.output.shape[: 2 if 1 in axes else 1], bool)
        for name, tensor in self.inputs.items():
            if name.endswith("mask") and 1 in axes and self.part.axes.get(name) == {0: axes.get(0), 1: axes[1]}:
                counted &= tensor.bool().numpy()
        return counted

    @property
    def length(self) -> str:
        """16, or 14/16 of a target and its source; nothing where no length varies."""
        found = [
            self.inputs[name].shape[1] for name, axes in self.part.axes.items() if name in self.inputs and 1 in axes
        ]
        return "/".join(map(str, dict.fromkeys(found)))


@dataclass
class Proof:
    """What became of one format: the rows of its table, and the reasons why it fails, of which there may be none."""

    format: str
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    agreement: float | None = None
    """share of places whose largest output stands at the same index"""
    modules: tuple[str, ...] = ()
    """top-level modules that the fresh process had loaded"""

    @property
    def largest(self) -> float | None:
        """The largest difference of all."""
        return max((row["max difference"] for row in self.rows), default=None)

    @property
    def check(self) -> Check:
        import pandas

        table = pandas.DataFrame(self.rows) if self.rows else None
        told = [*(self.reasons or self.notes), *([DEPRECATED[self.format]] if self.format in DEPRECATED else [])]
        return Check(self.format, "fail" if self.reasons else "pass", "; ".join(told), table)


def compare_outputs(
    proof: Proof,
    expected: Sequence[Expected],
    outputs: Sequence[numpy.ndarray],
    latency: Sequence[float],
    sizes: Mapping[str, int],
) -> None:
    """Fill in the rows, and judge over all of them. `latency` in milliseconds, `sizes` in bytes by part."""
    pairs: dict[str, list[tuple[numpy.ndarray, numpy.ndarray]]] = {}
    decided, other = [], []
    for one, output, milliseconds in zip(expected, outputs, latency):
        name = one.part.name
        if output.shape != one.output.shape:
            proof.reasons.append(f"{name} gives {output.shape}; expected {one.output.shape}")
            continue
        eager, given = one.output[one.counted], output[one.counted]
        apart = difference(eager, given)
        axis = 1 if one.output.ndim == 4 else -1  # of classes: (B, classes, H, W), or the last
        same = (eager.argmax(axis) == given.argmax(axis)).ravel()
        pairs.setdefault(name, []).append((eager.ravel(), apart.ravel()))
        (decided if one.part.output == "logits" else other).append(same)
        proof.rows.append(
            {
                "format": proof.format, "part": name, "batch": one.output.shape[0], "length": one.length,
                "max difference": float(apart.max()), "agreement": float(same.mean()),
                "latency ms": milliseconds, "eager ms": one.latency, "MB": sizes[name] / 1e6,
            }
        )  # fmt: skip
    if not pairs:
        return
    proof.agreement = float(numpy.concatenate(decided or other).mean())
    if proof.format == "int8":
        shares = [_share(*map(numpy.concatenate, zip(*found))) for found in pairs.values()]
        _judge_rounded(proof, max(shares), decides=bool(decided))
    else:
        _judge_exact(proof)


def difference(eager: numpy.ndarray, given: numpy.ndarray) -> numpy.ndarray:
    """Absolute differences in float64: 0 of equal infinities, infinite where either is not a number."""
    with numpy.errstate(invalid="ignore"):
        apart = numpy.abs(given.astype(numpy.float64) - eager)
    return numpy.where(given == eager, 0.0, numpy.where(numpy.isnan(apart), numpy.inf, apart))


def _judge_exact(proof: Proof) -> None:
    """By the difference alone: where it is small, only classes within twice as much can change places."""
    told = f"largest difference {proof.largest:.1e}"
    if proof.largest <= DIFFERENCE:
        proof.notes.insert(0, f"{told} (at most {DIFFERENCE:g}), argmax agreement {proof.agreement:.1%}")
        return
    worst = max(proof.rows, key=lambda row: row["max difference"])
    where = f"{worst['part']}, batch {worst['batch']}" + (f", length {worst['length']}" if worst["length"] else "")
    proof.reasons.append(f"{told} is above {DIFFERENCE:g} ({where}); argmax agreement {proof.agreement:.1%}")


def _share(eager: numpy.ndarray, apart: numpy.ndarray) -> float:
    """The mean difference over the outputs' standard deviation; of outputs all alike, none or infinite."""
    mean, spread = float(apart.mean()), float(eager.std())
    return mean / spread if spread else float("inf") if mean else 0.0


def _judge_rounded(proof: Proof, share: float, *, decides: bool) -> None:
    """By the mean difference, of the worst part; and by the agreement, where some output is of classes."""
    told = f"mean difference {share:.1%} of the outputs' standard deviation"
    if not share <= SPREAD:
        proof.reasons.append(f"{told} is above {SPREAD:.0%}")
    if decides and proof.agreement < AGREEMENT:
        proof.reasons.append(f"argmax agreement {proof.agreement:.1%} is below {AGREEMENT:.0%}")
    limit = f" (at least {AGREEMENT:.0%})" if decides else ""
    proof.notes.insert(0, f"{told} (at most {SPREAD:.0%}), argmax agreement {proof.agreement:.1%}{limit}")


def compare_tensors(proof: Proof, found: Mapping[str, list[Any]], state: Mapping[str, Tensor]) -> None:
    """Every tensor of the model is in the file, bit by bit; of tied ones, one is enough. `found` as `digests`."""
    places = {name: (tensor.data_ptr(), tensor.shape, tensor.stride()) for name, tensor in state.items()}
    there = {places[name] for name in found if name in places}
    wanted = digests({name: tensor.detach().cpu() for name, tensor in state.items()})
    problems = {
        "missing from the file": [name for name in state if name not in found and places[name] not in there],
        "in the file, and unknown to the model": [name for name in found if name not in state],
        "not the trained one, bit by bit": [name for name in found if name in wanted and found[name] != wanted[name]],
    }
    for what, names in problems.items():
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            proof.reasons.append(f"{', '.join(names[:SHOWN])}{more}: {what}")
    if not any(problems.values()):
        proof.notes.append(f"all {len(state)} tensors are the model's, bit by bit")


def expect(part: Part, inputs: Mapping[str, Tensor], calls: int) -> Expected:
    """Run a part in this process: once for what it gives, `calls` times for the median of how long it takes."""
    import time

    given, times = tuple(inputs.values()), []
    with torch.no_grad():
        output = part.module(*given).numpy()
        for _ in range(calls):
            start = time.perf_counter()
            part.module(*given)
            times.append(time.perf_counter() - start)
    return Expected(part, inputs, output, 1000 * statistics.median(times))
