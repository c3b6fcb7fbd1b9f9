"""What every check works under: the model is given back as it was found, and randomness is held still.

`Effort` says how much is tried at each scale.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from utils.core.config import ConfigError
from utils.core.repro import preserved_rng, seed_generators
from utils.models.adapter import Adapter

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Effort:
    """How much the checks try."""

    rows: int
    """rows of a batch"""
    length: int
    """tokens of a row, where the length is not what is checked"""
    longest: int
    """tokens that a check of the full context goes up to"""
    inputs: int
    """different random batches"""
    overfit_steps: int
    """optimiser steps to fit one batch in"""
    repeats: int
    """timed calls"""

    def length_for(self, adapter: Adapter) -> int:
        return min(self.length, adapter.limit or self.length)

    def full(self, adapter: Adapter) -> int:
        """The model's whole context, or as much of it as this scale goes to."""
        return min(self.longest, adapter.limit or self.longest)


EFFORTS = {
    "smoke": Effort(rows=4, length=16, longest=256, inputs=2, overfit_steps=200, repeats=10),
    "standard": Effort(rows=4, length=32, longest=1024, inputs=8, overfit_steps=300, repeats=30),
    "full": Effort(rows=8, length=64, longest=4096, inputs=32, overfit_steps=600, repeats=100),
}


def effort(scale: str) -> Effort:
    if scale not in EFFORTS:
        raise ConfigError(f"scale={scale!r}: expected one of {', '.join(EFFORTS)}.")
    return EFFORTS[scale]


@contextlib.contextmanager
def untouched(adapter: Adapter, *, train: bool = False, weights: bool = False, seed: int = 0) -> Iterator[nn.Module]:
    """The model in eval (or train) mode without gradients of its own, the generators seeded; all is put back after.

    Attributes (modes, and buffers or tables that a forward pass adds or replaces), the values of buffers, gradients,
    `requires_grad` and the state of every generator are always restored; the parameters' values too with `weights`, for
    a check that trains. A list or dict that a forward pass appends to is not.
    """
    model = adapter.model
    places = [
        place
        for module in model.modules()
        for place in (vars(module), module._parameters, module._buffers, module._modules)
    ]
    attributes = [dict(place) for place in places]
    parameters = list(model.parameters())
    found = [(parameter.grad, parameter.requires_grad) for parameter in parameters]
    kept = [(tensor, tensor.detach().clone()) for tensor in [*model.buffers(), *(parameters if weights else ())]]
    with preserved_rng():
        seed_generators(seed)
        try:
            model.train(train)
            for parameter in parameters:
                parameter.grad = None
            yield model
        finally:
            for place, before in zip(places, attributes):
                for name in place.keys() - before.keys():
                    del place[name]
                place.update(before)
            for parameter, (grad, requires_grad) in zip(parameters, found):
                parameter.grad = grad
                parameter.requires_grad_(requires_grad)
            with torch.no_grad():
                for tensor, value in kept:
                    if not torch.equal(tensor, value):  # an expanded buffer cannot be written to, nor be changed
                        tensor.copy_(value)


def backward_in_eval() -> contextlib.AbstractContextManager:
    """For gradients in eval mode: cuDNN's recurrent kernels refuse them, torch's own do not."""
    return torch.backends.cudnn.flags(enabled=False)


class WithoutDropout(TorchFunctionMode):
    """Every dropout inside passes its input on, whatever the modules' modes: two calls then differ by their inputs."""

    ARGUMENT = {  # name, place and value that turns it off, for functions without a `training`
        torch.nn.functional.scaled_dot_product_attention: ("dropout_p", 4, 0.0),
        torch.dropout: ("train", 2, False),
        torch.dropout_: ("train", 2, False),
        torch.feature_dropout: ("train", 2, False),
        torch.feature_dropout_: ("train", 2, False),
        torch.alpha_dropout: ("train", 2, False),
        torch.alpha_dropout_: ("train", 2, False),
        torch.feature_alpha_dropout: ("train", 2, False),
        torch.feature_alpha_dropout_: ("train", 2, False),
        torch.native_dropout: ("train", 2, False),
    }
    RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
    FUNCTIONAL = {
        torch.nn.functional.dropout,
        torch.nn.functional.dropout1d,
        torch.nn.functional.dropout2d,
        torch.nn.functional.dropout3d,
        torch.nn.functional.alpha_dropout,
        torch.nn.functional.feature_alpha_dropout,
        torch.nn.functional.multi_head_attention_forward,
    }

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self.FUNCTIONAL:
            kwargs["training"] = False
        elif func in self.ARGUMENT:
            name, place, off = self.ARGUMENT[func]
            if len(args) > place:
                args = (*args[:place], off, *args[place + 1 :])
            else:
                kwargs[name] = off
        elif func in self.RECURRENT:  # the one float among its arguments is the dropout between layers
            args = tuple(0.0 if isinstance(value, float) else value for value in args)
        return func(*args, **kwargs)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of two and more dimensions by name. A tied one counts once; norms' gains, biases and single vectors (a
    mask token of shape (1, 1, C)) are no matrices, a layer's `weight` of one row is."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.squeeze().dim() >= 2 or (parameter.dim() >= 2 and name.endswith(".weight"))
    }


def blank(adapter: Adapter) -> bool:
    """Whether every weight matrix holds one number repeated: nothing that depends on weights can be judged."""
    found = matrices(adapter.model).values()
    return bool(found) and all(is_constant(weight) for weight in found)


def is_constant(weight: torch.Tensor) -> bool:
    return weight.numel() > 1 and bool((weight == weight.flatten()[0]).all())


def frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    """A table of rows that have equal keys."""
    import pandas

    return pandas.DataFrame(rows)


def some(names: list[str]) -> str:
    """The first three of them, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, cut where it is long."""
    line = (str(error).strip() or type(error).__name__).replace("\n\t", " ").splitlines()[0]
    return line if len(line) < 160 else f"{line[:160]}..."
