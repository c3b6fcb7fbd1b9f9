"""Where the arithmetic and the parameters of a model are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.steady import Effort, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def count(adapter: Adapter, *, rows: int, length: int, seed: int) -> dict[str, int]:
    """FLOPs of one forward, by the name of the module they are in (those of its children included); "" is the model's.

    Multiply-adds count as two, as is usual, and only matrix products and convolutions count. Attention is computed
    by the plain products, which are counted on every device, and whole: a causal kernel would skip half of it.
    """
    if adapter.device.type == "mps":  # whose attention is one kernel that is not counted
        adapter = adapter.on_cpu()
    batch = adapter.batch(rows, length, seed=seed)
    counter = FlopCounterMode(display=False, depth=None)
    recurrent: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, _, name=name: recurrent.update({name: _recurrent(module, inputs)})
        )
        for name, module in adapter.model.named_modules()
        if isinstance(module, nn.RNNBase)
    ]
    with sdpa_kernel(SDPBackend.MATH), _no_fast_path(), counter, torch.no_grad():
        adapter(batch)
    for hook in hooks:
        hook.remove()
    root = type(adapter.model).__name__
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    named = {name.removeprefix(f"{root}."): flops for name, flops in counts.items() if name.startswith(f"{root}.")}
    named = {"": counts.get("Global", 0), **named}
    for name, flops in recurrent.items():  # one kernel, whatever torch counted of it
        missing = flops - named.get(name, 0)
        while True:
            named[name] = named.get(name, 0) + missing
            if not name:
                break
            name = name.rpartition(".")[0]
            while name and name not in named:
                name = name.rpartition(".")[0]
    return named


def _recurrent(module: nn.RNNBase, inputs: tuple) -> int:
    """Products of the weights with every step's input and state; gates' own arithmetic is left out, as elsewhere."""
    steps = inputs[0].numel() // inputs[0].shape[-1]
    return 2 * steps * sum(weight.numel() for weight in module.parameters() if weight.dim() == 2)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """nn.TransformerEncoderLayer without its one fused kernel, which is not counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def multiplied(model: nn.Module) -> int:
    """Parameters that are multiplied with every token: all but tables that are only looked up."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    used = {id(p) for m in model.modules() if not isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    return sum(p.numel() for p in model.parameters() if id(p) in used or id(p) not in tables)


def flops(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """FLOPs of a forward and parameters, by module, beside the rule of 2 N a token (Kaplan et al. 2020, section 2.1).

    N leaves out tables that are only looked up, and the rule leaves out attention, whose products grow with the length.
    There is no threshold: it tells what a step will cost, and where. Skipped where nothing could be counted.
    """
    rows, length = 1, effort.length_for(adapter)
    with untouched(adapter, seed=seed) as model:
        counts = count(adapter, rows=rows, length=length, seed=seed)
        table = _table(model, counts)
        total, number, used = counts[""], sum(p.numel() for p in model.parameters()), multiplied(model)
    if not total:
        return Check("flops", "skip", "no matrix product or convolution was counted", table, critical=False)
    table["share"] = table["FLOPs"] / total
    first = table.sort_values("FLOPs", ascending=False).iloc[0]
    if adapter.text:
        rule = 2 * used * length
        text = (
            f"{total / length:,.3g} FLOPs a token in a forward over {length} tokens, {total / rule:.2f} times the rule "
            f"of 2 N for the {used:,} parameters that are multiplied ({number:,} in all)"
        )
    else:
        text = f"{total:,.3g} FLOPs an image in a forward, with {number:,} parameters"
    text += f"; most in one module: {first['module']} ({first['share']:.0%})"
    return Check("flops", "pass", text, table, plot_flops(table), critical=False)


def _table(model: nn.Module, counts: dict[str, int]) -> pd.DataFrame:
    """A row a module with arithmetic or parameters of its own, without those of its children.

    A tied parameter counts where it stands first.
    """
    own = dict(counts)
    for name, inside in counts.items():
        parent = name
        while parent:  # the nearest module around it that ran: a ModuleList does not
            parent = parent.rpartition(".")[0]
            if parent in counts:
                own[parent] -= inside
                break
    rows, met = [], set()
    for name, module in model.named_modules():
        new = [parameter for parameter in module.parameters(recurse=False) if parameter not in met]
        met.update(new)
        parameters = sum(parameter.numel() for parameter in new)
        if own.get(name) or parameters:
            rows.append((name or type(model).__name__, type(module).__name__, parameters, own.get(name, 0)))
    return pd.DataFrame(rows, columns=["module", "type", "parameters", "FLOPs"])


def plot_flops(table: pd.DataFrame) -> Figure:
    """FLOPs and parameters, layers of one name added up (a number in a name becomes *), the ten largest."""
    kinds = table["module"].map(lambda name: re.sub(r"(?<![^.])\d+(?![^.])", "*", name))
    grouped = table[["FLOPs", "parameters"]].groupby(kinds, sort=False).sum()
    order = (grouped / grouped.sum().clip(lower=1)).max(axis=1).nlargest(10).index
    grouped = grouped.loc[[kind for kind in grouped.index if kind in order]]
    with canvas(ncols=2, figsize=(10, 1.1 + 0.28 * len(grouped)), sharey=True) as axes:
        for ax, column in zip(axes, grouped):
            ax.barh(grouped.index, grouped[column])
            ax.set_title(f"{column} by module")
            ax.tick_params(axis="y", labelsize="small")
        axes[0].invert_yaxis()
        return axes[0].figure
