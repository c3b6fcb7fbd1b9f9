"""Can it learn? The loss before training, and one batch by heart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.validation.dependence import sees_context, sees_input
from utils.validation.steady import Effort, WithoutDropout, blank, is_constant, matrices, untouched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def initialisation(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """The untrained loss is near that of a guess, ln V, and the weights are not all alike.

    Threshold: the mean loss on random labels may exceed ln V by 1 nat, with a warning up to 3. Logits that are normal
    with deviation s cost s^2 / 2 nats over ln V, so 1 nat is s = 1.4: beyond, training begins by shrinking the head. A
    matrix of one repeated number, other than 0, keeps its units alike for ever; matrices of zeros are common where a
    branch begins as the identity (Zhang et al. 2019), unless all of them are. Gains, which begin at one, are not
    judged: only the weights of layers that are known to multiply with a matrix, or to look rows up.
    """
    import pandas

    name = "initialisation"
    if blank(adapter):
        return Check(
            name,
            "fail",
            "every weight matrix holds one number repeated, so its units stay alike; draw the weights at random",
        )
    if adapter.pretrained:
        return Check(name, "skip", "trained weights were loaded")
    table = pandas.DataFrame(
        [
            {
                "matrix": key,
                "shape": " x ".join(map(str, weight.shape)),
                "mean": weight.mean().item(),
                "std": weight.std().item(),
            }
            for key, weight in matrices(adapter.model).items()
        ]
    )
    alike = [
        key
        for key, weight in matrices(adapter.model).items()
        if is_constant(weight) and weight.flatten()[0] != 0 and _multiplies(adapter.model, key)
    ]
    if alike:
        return Check(
            name,
            "fail",
            f"{', '.join(alike[:3])}: one number repeated; draw it at random",
            table,
        )
    if not adapter.head:
        return Check(name, "skip", "the model ends in hidden states: there is no loss to compare with ln V", table)
    with untouched(adapter, seed=seed), torch.no_grad():
        batches = [
            adapter.batch(effort.rows, effort.length_for(adapter), seed=seed + number)
            for number in range(effort.inputs)
        ]
        loss = sum(adapter.loss(batch).item() for batch in batches) / len(batches)
    chance = math.log(adapter.labels)
    text = f"the untrained loss is {loss:.2f} nats; a guess costs ln {adapter.labels:,} = {chance:.2f}"
    if loss <= chance + 1:
        return Check(name, "pass", text, table)
    hint = "the first logits are too large; scale the head or the embedding down (std 0.02 is common)"
    return Check(name, "warn" if loss <= chance + 3 else "fail", f"{text}: {hint}", table)


def _multiplies(model: nn.Module, key: str) -> bool:
    """Whether a parameter is the weight of a linear, convolutional, recurrent, attention or embedding layer."""
    owner = model.get_submodule(key.rpartition(".")[0])
    known = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.MultiheadAttention, nn.Embedding, nn.Bilinear)
    return isinstance(owner, known) or type(owner).__name__ == "Conv1D"  # transformers' linear layer


def overfit_one_batch(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """AdamW learns one batch of random labels by heart, dropout off.

    Where a position's output depends on its own token alone, equal tokens get equal labels.

    Threshold: the loss falls to a fifth of where it began, at a learning rate of 1e-3, else 3e-3, else 3e-4; to a half
    is a warning. A model that cannot fit a few rows has a broken path from its input to its loss.
    """
    import pandas

    name = "overfit one batch"
    if not adapter.head:
        return Check(name, "skip", "the model ends in hidden states: there is no loss to minimise")
    if blank(adapter):
        return Check(name, "skip", "every weight matrix is constant, see initialisation")
    if not sees_input(adapter, effort, seed):
        return Check(name, "skip", "the output does not depend on the input, see input sensitivity")
    batch = adapter.batch(effort.rows, min(16, effort.length_for(adapter)), seed=seed)
    alone = adapter.language and not sees_context(adapter, batch, seed)
    if alone:
        table = torch.randint(adapter.labels, (adapter.usable_ids,), generator=torch.Generator().manual_seed(seed))
        batch["labels"] = table.to(adapter.device)[batch[adapter.varied]]
    curves: dict[str, list[float]] = {}
    for lr in (1e-3, 3e-3, 3e-4):
        losses = curves[f"lr {lr:g}"] = _memorise(adapter, batch, effort.overfit_steps, lr, seed)
        if losses[-1] <= losses[0] / 5:
            break
    best = min(curves, key=lambda label: (curves[label][-1] != curves[label][-1], curves[label][-1]))  # NaN comes last
    first, last = curves[best][0], curves[best][-1]
    table = pandas.DataFrame(
        [
            {"learning rate": label, "steps": len(losses) - 1, "first loss": losses[0], "last loss": losses[-1]}
            for label, losses in curves.items()
        ]
    )
    figure = plot_losses(curves)
    text = "each output depends on its own token alone; " if alone else ""
    text += f"the loss of one batch fell from {first:.2f} to {last:.2f} in {len(curves[best]) - 1} steps"
    if last <= first / 5:
        return Check(name, "pass", text, table, figure)
    hint = "labels, logits and inputs may not be lined up, or the signal is lost between layers"
    return Check(name, "warn" if last <= first / 2 else "fail", f"{text}, at {best}: {hint}", table, figure)


def _memorise(adapter: Adapter, batch: dict[str, Tensor], steps: int, lr: float, seed: int) -> list[float]:
    losses = []
    with untouched(adapter, train=True, weights=True, seed=seed) as model, torch.enable_grad(), WithoutDropout():
        parameters = [parameter.requires_grad_(True) for parameter in model.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=adapter.device.type in ("cpu", "cuda"))
        for step in range(steps + 1):
            loss = adapter.loss(batch)
            losses.append(loss.item())
            if step == steps or losses[-1] <= losses[0] / 5 or losses[-1] != losses[-1]:
                break
            optimizer.zero_grad(set_to_none=True)
            if loss.requires_grad:
                loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / 10)
            optimizer.step()
    return losses


def plot_losses(curves: dict[str, list[float]], ax: Axes | None = None) -> Figure:
    """The loss over the steps, a line for each learning rate that was tried."""
    with canvas(ax) as ax:
        for label, losses in curves.items():
            ax.plot(losses, label=label)
        ax.set(xlabel="step", ylabel="loss, nats", title="One batch by heart")
        ax.set_ylim(bottom=0)
        ax.legend()
        return ax.figure
