"""Gradient checkpointing (Chen et al. 2016): blocks keep only what they were given, and compute the rest again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from utils.core.config import ConfigError
from utils.models.blocks import Block


@contextlib.contextmanager
def recomputed(model: nn.Module, *, on: bool = True) -> Iterator[None]:
    """Inside, the blocks of `model` recompute in the backward pass, without the reentrant form of torch.

    Blocks are our own, or those of a model with transformers' `gradient_checkpointing_enable`. Raises `ConfigError`
    where it has neither.
    """
    if not on:
        yield
        return
    own = [module for module in model.modules() if isinstance(module, Block)]
    hosts = [module for module in model.modules() if getattr(module, "supports_gradient_checkpointing", False)][:1]
    if not own and not hosts:
        raise ConfigError(
            f"train.gradient_checkpointing is on, and {type(model).__name__} has neither blocks of utils.models nor"
            " transformers' gradient_checkpointing_enable. Turn it off; a smaller train.micro_batch_size saves memory"
            " too."
        )
    before = [block.recompute for block in own]
    already = [host.is_gradient_checkpointing for host in hosts]
    try:
        for block in own:
            block.recompute = True
        for host in hosts:
            host.gradient_checkpointing_enable({"use_reentrant": False})
        yield
    finally:
        for block, was in zip(own, before):
            block.recompute = was
        for host, was in zip(hosts, already):
            if not was:
                host.gradient_checkpointing_disable()
