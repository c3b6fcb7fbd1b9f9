"""Does every layer get a gradient, of a size that one learning rate can serve?"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from utils.core.check import Check
from utils.core.plots import canvas
from utils.models.adapter import Adapter
from utils.models.signature import tensors_of
from utils.validation.dependence import sign_step
from utils.validation.steady import Effort, WithoutDropout, backward_in_eval, blank, matrices, some, untouched

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAR = 1e3  # a layer's gradient norm against the median layer's


def gradient_flow(adapter: Adapter, effort: Effort, *, seed: int = 0) -> Check:
    """Every weight matrix gets a gradient, and no layer's is vanishingly small or explosively large beside the others.

    Thresholds: a matrix whose gradient is missing or exactly 0 is dead: fail. A layer whose gradient norm is under
    1/1000 or over 1000 times the median layer's vanishes or explodes: fail, since one learning rate cannot serve both
    (in sound models of 24 layers it stays within a factor of 30). Both are asked again after two small steps, with
    which a branch that begins at 0 comes to life, and with learned gains that begin near 0 (Touvron et al. 2021) at 1.
    Matrices of modules that forward never calls are a warning. Biases are not judged: a key's bias has gradient 0 by
    the algebra of softmax; nor is a frozen matrix without a gradient: it was asked for.
    """
    name = "gradient flow"
    if blank(adapter):
        return Check(name, "skip", "every weight matrix is constant, see initialisation")
    found = matrices(adapter.model)
    frozen = {key for key, weight in found.items() if not weight.requires_grad}
    batch = adapter.batch(effort.rows, effort.length_for(adapter), seed=seed)
    with untouched(adapter, weights=True, seed=seed) as model:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        called = _called(adapter, batch)
        norms = _gradients(adapter, batch, every=not adapter.head)
        if adapter.head and not (all(norms.values()) and _farthest(norms) is None):
            _open_gains(model)
            for _ in range(2):
                sign_step(adapter, batch)
            later = _gradients(adapter, batch)
            if all(norms.values()):
                norms = norms if _farthest(later) else later
            else:
                aside = _gradients(adapter, batch, every=True)  # what feeds another output than the logits is not dead
                norms = {key: later[key] or norm or aside[key] for key, norm in norms.items()}
    norms = {key: norm for key, norm in norms.items() if norm or key not in frozen}
    if not norms:
        return Check(name, "skip", "the model has no weight matrix that is trained")
    unused = [key for key, norm in norms.items() if norm is None and _owner(key) not in called]
    dead = [key for key, norm in norms.items() if not norm and key not in unused]
    table = layer_norms(norms)
    return Check(name, *_judge(norms, dead, unused, table), table, plot_gradients(table))


def _open_gains(model: nn.Module) -> None:
    """Put at 1 the vectors and scalars, biases aside, that hold one number under 0.1: they keep a branch shut."""
    known = matrices(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in known or name.endswith("bias") or not parameter.numel():
                continue
            first = parameter.flatten()[0]
            if (parameter == first).all() and first.abs() < 0.1:
                parameter.fill_(1)


def _judge(norms: dict[str, float | None], dead: list[str], unused: list[str], table: pandas.DataFrame) -> tuple:
    """Status and summary."""
    sizes = table.set_index("layer")["gradient norm"]
    broken = [layer for layer, size in sizes.items() if not math.isfinite(size)]
    if broken:
        return "fail", f"the gradient of {broken[0]} is not finite; see numerical stability"
    if dead:
        summary = (
            f"{len(dead)} of {len(norms)} matrices get no gradient ({some(dead)}): look for detach, no_grad, a "
            "multiplication by 0, or units that are always off"
        )
        return "fail", summary
    far = _farthest(norms)
    if far is not None:
        layer, times = far
        summary = (
            f"the gradient {'explodes' if times > 1 else 'vanishes'} at {layer}: it is {times:.0e} times the median "
            "layer's; look at the scale of the residual branches, the norms and the initialisation"
        )
        return "fail", summary
    if unused:
        return (
            "warn",
            f"forward never calls the modules of {len(unused)} matrices ({some(unused)})",
        )
    spread = sizes.max() / sizes[sizes > 0].min()
    return "pass", f"all {len(norms)} matrices get a gradient; layers differ by a factor of {spread:.0f}"


def _farthest(norms: dict[str, float | None]) -> tuple[str, float] | None:
    """The layer whose gradient explodes, else the one whose vanishes, and how many times the median layer's it is."""
    sizes = layer_norms(norms).set_index("layer")["gradient norm"]
    sizes = sizes[sizes > 0]
    for layer in (sizes.idxmax(), sizes.idxmin()) if len(sizes) else ():
        times = sizes[layer] / sizes.median()
        if not 1 / FAR <= times <= FAR:
            return layer, times
    return None


def _owner(key: str) -> str:
    return key.rpartition(".")[0]


def _called(adapter: Adapter, batch: dict[str, Tensor]) -> set[str]:
    """Paths of the modules that a forward pass runs."""
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda _module, _inputs, path=path: called.add(path))
        for path, module in adapter.model.named_modules()
    ]
    try:
        with torch.no_grad():
            adapter(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return called


def _gradients(adapter: Adapter, batch: dict[str, Tensor], *, every: bool = False) -> dict[str, float | None]:
    """L2 norm of each matrix's gradient: of the loss, or of the product of `every` output with fixed random numbers."""
    with torch.enable_grad(), WithoutDropout(), backward_in_eval():
        if every:
            outputs = [output.float() for output in tensors_of(adapter.raw(batch)) if output.requires_grad]
            fixed = torch.Generator().manual_seed(0)
            loss = sum((output * torch.randn(output.shape, generator=fixed).to(output)).mean() for output in outputs)
        else:
            loss = adapter.loss(batch)
        if isinstance(loss, Tensor) and loss.requires_grad:  # else no weight gets a gradient, which is the finding
            loss.backward()
    found = matrices(adapter.model)
    norms = {key: None if weight.grad is None else weight.grad.float().norm().item() for key, weight in found.items()}
    for parameter in adapter.model.parameters():
        parameter.grad = None
    return norms


def layer_norms(norms: dict[str, float | None]) -> pandas.DataFrame:
    """Gradient norms by layer: the numbered blocks (`blocks.3`), and each other matrix's module by itself."""
    import pandas

    layers: dict[str, list[float]] = {}
    for key, norm in norms.items():
        numbered = re.match(r"(.*?\.\d+)\.", key)
        layer = numbered.group(1) if numbered else _owner(key) or key
        layers.setdefault(layer, []).append(norm or 0.0)
    rows = [(layer, len(some), math.hypot(*some)) for layer, some in layers.items()]
    return pandas.DataFrame(rows, columns=["layer", "matrices", "gradient norm"])


def plot_gradients(table: pandas.DataFrame, ax: Axes | None = None) -> Figure:
    """The gradient norm of each layer, first layer on top."""
    with canvas(ax, figsize=(6, 0.8 + 0.24 * len(table))) as ax:
        ax.barh(table["layer"], table["gradient norm"].clip(lower=1e-12))
        ax.invert_yaxis()
        ax.set(xscale="log", xlabel="L2 norm of the gradient", title="Gradient by layer")
        return ax.figure
