"""What the heads of a model attend to, and whether they differ."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.observer import observe
from utils.validation.steady import Effort, some, untouched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLLAPSED = 0.02
UNIFORM = 0.95
TOLERANCE = 0.01
SHOWN = 64


def describe(weights: Tensor, visible: Tensor) -> dict[str, Any]:
    """Per head, over the rows that see at least two keys (a causal head's first row has no choice): means.

    `entropy` in nats; `share`, of the logarithm of the number of keys seen; `first`, the weight on key 0; `diagonal`,
    the weight of a position on itself (NaN where queries and keys differ in number). Per layer: `diversity`, the mean
    Jensen-Shannon divergence in nats (0 for equal heads, at most ln 2) of all pairs of heads; `error`, the farthest
    that a row's sum is from one.
    """
    seen = visible.sum(-1).expand(weights.shape[:-1])  # (B, nh, T)
    chooses = seen >= 2
    entropy = torch.special.entr(weights).sum(-1)

    def mean(values: Tensor, where: Tensor) -> list[float]:
        return (values.where(where, values.new_zeros(())).sum((0, 2)) / where.sum((0, 2))).tolist()

    pairs = []
    for head in range(weights.shape[1] - 1):
        one, others = weights[:, head : head + 1], weights[:, head + 1 :]
        between = torch.special.entr((one + others) / 2).sum(-1)
        divergence = between - (entropy[:, head : head + 1] + entropy[:, head + 1 :]) / 2
        pairs += mean(divergence, chooses[:, head : head + 1] & chooses[:, head + 1 :])
    square = weights.shape[-1] == weights.shape[-2]
    own = weights.diagonal(dim1=-2, dim2=-1) if square else torch.full_like(entropy, math.nan)
    return {
        "entropy": mean(entropy, chooses),
        "share": mean(entropy / seen.clamp(min=2).log(), chooses),
        "first": mean(weights[..., 0], chooses),
        "diagonal": mean(own, chooses),
        "diversity": sum(pairs) / len(pairs) if pairs else math.nan,
        "error": float((weights.sum(-1) - 1).abs().nan_to_num(math.inf).max()),
    }


def attention_patterns(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """How the heads of a layer spread their weight, and whether they differ.

    Warns of collapse where more than half the heads of a layer have an entropy under 0.02 of the largest possible: at
    32 keys that is 0.99 of the weight on one, where the softmax passes a hundredth of the gradient and training turns
    unstable (Zhai et al. 2023, "Stabilizing Transformer Training by Preventing Attention Entropy Collapse"); single
    heads that sharp are common in trained models (Clark et al. 2019). Warns where the weights of a row do not sum to
    one within 0.01, over twice the rounding of bf16 (2^-8). Uniform heads are what an untrained model has: no warning.
    """
    layers: dict[str, dict[str, Any]] = {}
    heads = re.compile(r"^(.*heads)\.\d+$")  # modules of one head each, in a list called heads

    def see(name: str, weights: Tensor, visible: Tensor) -> None:
        if weights.shape[-1] < 2:
            return
        found = describe(weights, visible) | {"picture": weights[0, :4, :SHOWN, :SHOWN].clone()}
        listed = heads.match(name)
        if listed and weights.shape[1] == 1:
            layers.setdefault(listed[1], {"parts": []})["parts"].append((weights, visible))
            return
        unique, number = name, 2
        while unique in layers:
            unique, number = f"{name} ({number})", number + 1
        layers[unique] = found

    with untouched(adapter, seed=seed):
        observe(adapter, adapter.batch(min(effort.rows, 2), effort.length_for(adapter), seed=seed), see)
    for name, layer in layers.items():
        if "parts" in layer:
            weights, visible = (torch.cat(parts, dim=1) for parts in zip(*layer["parts"]))
            layers[name] = describe(weights, visible) | {"picture": weights[0, :4, :SHOWN, :SHOWN].clone()}
    if not layers:
        ways = "scaled_dot_product_attention, multi_head_attention_forward or a softmax over keys"
        return Check("attention patterns", "skip", f"no attention could be observed: no call of {ways}", critical=False)

    table = pd.DataFrame(
        {
            "layer": name,
            "head": head,
            "entropy (nats)": layer["entropy"][head],
            "of the largest": layer["share"][head],
            "on the first key": layer["first"][head],
            "on the diagonal": layer["diagonal"][head],
            "diversity of the layer": layer["diversity"],
        }
        for name, layer in layers.items()
        for head in range(len(layer["entropy"]))
    )
    low = (table["of the largest"] < COLLAPSED).groupby(table["layer"], sort=False).mean()
    collapsed = list(low.index[low > 0.5])
    crooked = [name for name, layer in layers.items() if layer["error"] > TOLERANCE]
    spread = table["of the largest"]
    text = (
        f"the entropy of {len(table)} heads in {len(layers)} layer{'s' * (len(layers) > 1)} is {spread.min():.1%} to "
        f"{spread.max():.1%} of the largest possible; "
        f"heads of a layer differ by {table['diversity of the layer'].mean():.2g} nats"
    )
    if spread.min() > UNIFORM:
        text += " (near uniform, as in a model that is not trained)"
    if crooked:
        text = f"weights of a row do not sum to one in {some(crooked)}: look at its softmax and masks; {text}"
    elif collapsed:
        text = f"most heads look at a single key in {some(collapsed)}: look at the scale of its scores; {text}"
    figures = [plot_attention({name: layer["picture"] for name, layer in layers.items()}), plot_entropies(table)]
    return Check("attention patterns", "warn" if crooked or collapsed else "pass", text, table, figures, critical=False)


def plot_attention(pictures: Mapping[str, Tensor]) -> Figure:
    """Weights (heads, T, S) of the first, the middle and the last layer, for one input; each on its own scale."""
    names = list(pictures)
    names = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    columns = max(len(pictures[name]) for name in names)
    size = (1.9 * max(columns, 2) + 0.6, 2.05 * len(names) + 0.3)
    with canvas(nrows=len(names), ncols=columns, figsize=size, squeeze=False) as axes:
        for row, name in zip(axes, names):
            for head, ax in enumerate(row):
                if head >= len(pictures[name]):
                    ax.set_axis_off()
                    continue
                ax.imshow(pictures[name][head].numpy(), cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
                ax.grid(False)
                ax.set_title(f"{name}\nhead 0" if head == 0 else f"head {head}", fontsize="small")
                ax.tick_params(labelsize="x-small")
        axes[-1][0].set(xlabel="key", ylabel="query")
        return axes[0][0].figure


def plot_entropies(table: pd.DataFrame, ax: Any = None) -> Figure:
    """The entropy of each head as a share of the largest possible, a row a layer."""
    grid = table.pivot(index="layer", columns="head", values="of the largest").loc[table["layer"].unique()]
    with canvas(ax, figsize=(6.0, 1.2 + 0.25 * len(grid))) as ax:
        image = ax.imshow(grid.to_numpy(), cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.grid(False)
        ax.set(xlabel="head", title="Entropy of the attention, as a share of the largest possible")
        ax.set_xticks(range(len(grid.columns)), grid.columns)
        ax.set_yticks(range(len(grid)), grid.index, fontsize="small")
        ax.figure.colorbar(image, ax=ax)
        return ax.figure
