"""What validating a model costs: seconds and peak memory of each check, beside the model's own training step.

    python benchmarks/validate.py [example:gpt ...] [--scale standard]

Memory counts tensors (utils.validation.cost.TensorMemory): the weights and everything made meanwhile, over the same for
a step of AdamW on a batch of the checks' size.
"""

from __future__ import annotations

import argparse
import time

import torch

from utils.models.source import find, load
from utils.validation.cost import TensorMemory
from utils.validation.report import adapt_loaded
from utils.validation.settings import ValidationConfig
from utils.validation.steady import effort
from utils.validation.tier1 import TIER1
from utils.validation.tier2 import TIER2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", default=["example:gpt"])
    parser.add_argument("--scale", default="standard")
    arguments = parser.parse_args()
    for source in arguments.sources:
        config = ValidationConfig(source=source, scale=arguments.scale, device="cpu")
        adapter, much = adapt_loaded(load(find(source)), config), effort(config.scale)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in adapter.model.parameters())
        seconds, step = training_step(adapter, much)
        print(f"\n{source}, {arguments.scale}: {adapter.facts()['parameters']} parameters")
        print(f"{'a training step':24s} {seconds:7.3f} s  {(weights + step) / 2**20:7.1f} MiB")
        begun = time.perf_counter()
        for check in (*TIER1, *TIER2):
            start = time.perf_counter()
            found = check(adapter, much)
            took = time.perf_counter() - start
            with TensorMemory() as used:
                check(adapter, much)
            print(f"{found.name:24s} {took:7.3f} s  {(weights + used.peak) / (weights + step):7.2f} of a step's memory")
        print(f"{'all, each run twice':24s} {time.perf_counter() - begun:7.3f} s")


def training_step(adapter, much) -> tuple[float, int]:
    """Seconds of the third AdamW step, and the peak bytes of tensors over three."""
    batch = adapter.batch(much.rows, much.length_for(adapter), seed=0)
    with TensorMemory() as used:
        optimizer = torch.optim.AdamW(adapter.model.parameters(), lr=0.0, weight_decay=0.0)
        for _ in range(3):
            start = time.perf_counter()
            optimizer.zero_grad()
            adapter.loss(batch).backward()
            optimizer.step()
    adapter.model.zero_grad(set_to_none=True)
    return time.perf_counter() - start, used.peak


if __name__ == "__main__":
    main()
