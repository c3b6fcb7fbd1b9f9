"""What every model made from the blocks has: its config, its kind, and a count of its parameters."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from utils.models.blocks import TransformerConfig


class Model(nn.Module):
    """Abstract: a model declares its `kind`, one of those in `models.facts`, and defines `forward`."""

    kind: ClassVar[str]

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config

    def num_parameters(self) -> int:
        """Trainable numbers; a tied matrix counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def require_sizes(model: Model) -> None:
    """Raise ValueError where the config of a model of tokens leaves its vocabulary or context open."""
    if model.config.vocab_size is None or model.config.context_length is None:
        name = type(model).__name__
        raise ValueError(f"{name} needs model.vocab_size and model.context_length; one of them is None.")


def refuse_beyond(context_length: int, tokens: int) -> None:
    """Raise ValueError where there are more tokens than a model's context length."""
    if tokens > context_length:
        raise ValueError(f"{tokens} tokens exceed the model's context length of {context_length}.")
