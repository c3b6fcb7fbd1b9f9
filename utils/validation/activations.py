"""What flows through a model: the size of every module's output, and units of activation functions that never act."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.models.signature import AdapterError, logits_of
from utils.validation.steady import Effort, WithoutDropout, untouched
from utils.validation.watch import running

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OFF = 1e-6
DEAD, DEAD_POOLED = 0.5, 0.9
# Functions that shut a unit off for negative inputs; a tanh or a sigmoid saturates, but is never off.
RECTIFIERS = {
    F.relu: "relu", torch.relu: "relu", torch.relu_: "relu", Tensor.relu: "relu", Tensor.relu_: "relu",
    F.relu6: "relu6", F.gelu: "gelu", F.silu: "silu", F.mish: "mish", F.hardswish: "hardswish",
}  # fmt: skip
NAMED = re.compile(r"(?<!leaky)(?<!p)(?<!r)relu|gelu|silu|swish|mish", re.IGNORECASE)


class Activations(TorchFunctionMode):
    """Gathers, by module and by how many outputs it has given in the same forward, what its outputs were like."""

    def __init__(self, stack: list[str], rows: int):
        super().__init__()
        self.stack, self.rows = stack, rows
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        self.times: dict[str, int] = {}
        self.rectified: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in RECTIFIERS:
            name = self.stack[-1] if self.stack else ""
            self._add(name, RECTIFIERS[func], result, rectifier=True)
            self.rectified.add(name)
        return result

    def leaf(self, name: str, module: nn.Module, output: Any) -> None:
        """Told of by `running`. A module that is an activation function was seen already, if it calls torch's."""
        if name in self.rectified:
            self.rectified.discard(name)
            return
        if not isinstance(output, Tensor):
            try:
                output = logits_of(output)[0]
            except AdapterError:
                return
        if output.is_floating_point() and output.numel():
            kind = type(module).__name__
            weightless = not any(True for _ in module.parameters())
            self._add(name, kind, output, rectifier=weightless and bool(NAMED.search(kind)))

    def next_input(self) -> None:
        self.times.clear()

    @torch.no_grad()
    def _add(self, name: str, kind: str, output: Tensor, *, rectifier: bool) -> None:
        time = self.times[name] = self.times.get(name, 0) + 1
        axis = 1 if output.dim() == 4 else output.dim() - 1  # units: channels of (B, C, H, W), else the last
        x = output.detach().float().movedim(axis, -1).flatten(0, -2)  # (positions, units)
        largest = x.abs().amax()
        scaled = x / largest.clamp(min=1e-30)
        mean, square, largest = torch.stack([scaled.mean(), scaled.square().mean(), largest]).tolist()
        one = self.found.setdefault((name, time), {
            "kind": kind, "calls": 0, "mean": 0.0, "square": 0.0, "max": 0.0, "finite": True, "positions": 0,
            "on": None, "pooled": False,
        })  # fmt: skip
        one["finite"] &= largest < float("inf")
        one["calls"] += 1
        one["mean"] += mean * largest
        one["square"] += square * largest**2
        one["max"] = max(one["max"], largest)
        one["positions"] += len(x)
        if rectifier:
            on = ~(x.abs() <= OFF).all(0)
            one["on"] = on if one["on"] is None or one["on"].shape != on.shape else one["on"] | on
            one["pooled"] = len(x) <= self.rows

    def table(self) -> pd.DataFrame:
        """A row an output, in the order in which they first came; units and the dead of them where it rectifies."""
        rows = []
        for (name, time), one in self.found.items():
            mean, square = one["mean"] / one["calls"], one["square"] / one["calls"]
            units = None if one["on"] is None else one["on"].numel()
            rows.append({
                "module": name if time == 1 else f"{name} ({time})", "type": one["kind"], "mean": mean,
                "std": max(square - mean**2, 0.0) ** 0.5 if one["finite"] else float("nan"),
                "RMS": square**0.5 if one["finite"] else float("nan"), "largest": one["max"], "finite": one["finite"],
                "units": units, "dead": None if units is None else units - int(one["on"].sum()),
                "positions": one["positions"], "pooled": one["pooled"],
            })  # fmt: skip
        return pd.DataFrame(rows).astype({"units": "Int64", "dead": "Int64"})


def activations(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Mean, std, RMS and largest of every module's output over random inputs, and dead units.

    A unit of a rectifier (ReLU, GELU, SiLU and their kin) is dead if its output is within 1e-6 of zero at every
    position of every input: next to values near one, float32 cannot tell what it adds from nothing. GELU is that small
    below -5, SiLU below -17, where their gradients are too, so such a unit does not come back. Warns where over half
    of a layer is dead (Lu et al. 2019, "Dying ReLU and Initialization"; deep in an untrained post-norm model tokens are
    so alike that a sixth of a layer can be off for all of them), or 90% where there is one position a row: pooled rows
    of random inputs are nearly alike, so that a healthy ReLU is off for all of them half the time. Warns where an
    output is not finite.
    """
    with untouched(adapter, seed=seed) as model:
        seen = Activations([], effort.rows)
        with running(model, seen.leaf) as stack, WithoutDropout(), seen, torch.no_grad():
            seen.stack = stack
            for index in range(effort.inputs):
                seen.next_input()
                adapter(adapter.batch(effort.rows, effort.length_for(adapter), seed=seed + index))
    if not seen.found:
        return Check("activations", "skip", "no module of the model gives a tensor of floats", critical=False)
    table = seen.table()
    share = (table["dead"] / table["units"]).astype(float)
    dying = table["module"][share > table["pooled"].map({True: DEAD_POOLED, False: DEAD})]
    broken = table["module"][~table["finite"]]
    units, dead = int(table["units"].sum()), int(table["dead"].sum())
    rectifiers = f"{dead:,} of {units:,} units are dead" if units else "there is no rectifier whose units could be dead"
    sizes = table["RMS"][table["RMS"] > 0]
    spread = f"RMS of the outputs from {sizes.min():.2g} to {sizes.max():.2g}" if len(sizes) else "all outputs are zero"
    text = f"{len(table)} outputs seen: {spread}; {rectifiers}"
    if len(broken):
        text = f"{broken.iloc[0]} is the first of {len(broken)} outputs that are not finite; {text}"
    elif len(dying):
        worst = share.idxmax()
        text = f"{share[worst]:.0%} of the units of {table['module'][worst]} never act on any input; {text}"
    status = "warn" if len(broken) or len(dying) else "pass"
    return Check("activations", status, text, table.drop(columns="pooled"), plot_activations(table), critical=False)


def plot_activations(table: pd.DataFrame) -> Figure:
    """RMS and largest value of each output, first to last, and the share of dead units of the worst rectifiers."""
    share = (table["dead"] / table["units"]).astype(float)
    worst = share.dropna().nlargest(12).sort_index()
    with canvas(ncols=2, figsize=(10, 4), width_ratios=(2, 1)) as axes:
        for column in ("RMS", "largest"):
            axes[0].plot(range(len(table)), table[column].where(table[column] > 0), marker=".", label=column)
        axes[0].set(yscale="log", title="Size of the outputs, first to last")
        places = range(0, len(table), -(-len(table) // 12))
        axes[0].set_xticks(places, [table["module"][place] for place in places], rotation=60, ha="right", fontsize=7)
        axes[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        axes[1].barh(range(len(worst)), worst)
        axes[1].axvline(DEAD, color="0.4", linestyle="--")
        axes[1].set(title="Dead units" if worst.any() else "Dead units: none", xlabel="share", xlim=(0, 1))
        axes[1].set_yticks(range(len(worst)), table["module"][worst.index], fontsize=7)
        axes[1].invert_yaxis()
        return axes[0].figure
