"""Speed and quality of the training loop, against named peers in the same process.

    python benchmarks/train_lm.py                      speed: a table of ms a step, tokens a second, and ratios
    python benchmarks/train_lm.py --quality TEXT_FILE  validation loss of the small recipe after 2,000 steps

The two sizes are those of nanoGPT's CPU recipe (4 layers, 4 heads, width 128, context 64, batch 12) and a larger one
(6 layers, 8 heads, width 128, context 256, batch 64). What is compared, in turn, round after round:

    fit         `fit` with the project's defaults, all of it: batches, logging, TensorBoard, progress bar
    bare        the same model, precision and optimiser in a bare loop: what `fit` adds is its overhead
    nanogpt     nanoGPT's settings in a bare loop: fp32, AdamW that is not fused, learned positions
    gpt2        transformers' GPT2LMHeadModel of the same size in that bare loop

Batches are the same for all. Steps are timed from batch to batch, and the medians are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.core.device import choose
from utils.core.run import Run
from utils.data.loaders import TextData, prepare
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.training.fit import fit
from utils.training.objectives import next_token
from utils.training.optim import make_optimizer
from utils.training.recipes import Recipe, build_model, final_metrics, load_recipe

SIZES = {
    "small": [],
    "large": ["model.num_layers=6", "model.num_heads=8", "data.block_size=256", "train.batch_size=64"],
}
STEPS = {"small": 60, "large": 6}
WARM_UP = {"small": 10, "large": 2}


class Timed:
    """A split that notes when each training batch is asked for."""

    def __init__(self, split):
        self.split, self.times = split, []

    def __getattr__(self, name: str):
        return getattr(self.split, name)

    def batches(self, *arguments, **keywords) -> Iterator[dict[str, Tensor]]:
        for batch in self.split.batches(*arguments, **keywords):
            self.times.append(time.perf_counter())
            yield batch

    def steps(self, warm_up: int) -> list[float]:
        times = self.times[warm_up:]
        return [after - before for before, after in zip(times, times[1:])]


def run_fit(recipe: Recipe, data: TextData, steps: int, warm_up: int) -> list[float]:
    train = Timed(data.train)
    timed = TimedData(data, train)
    config = recipe.train.replace(max_steps=steps, warmup_steps=0, eval_every=steps, eval_batches=1, log_every=10)
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
        fit(build_model(recipe, data), next_token, timed, Run.create(root, "bench", recipe), config)
    return train.steps(warm_up)[1:]  # the first batch asked for is the speed meter's


class TimedData:
    """`data` with its training split timed."""

    def __init__(self, data: TextData, train: Timed):
        self.train, self.validation, self.fingerprint = train, data.validation, data.fingerprint


def run_bare(
    recipe: Recipe,
    data: TextData,
    steps: int,
    warm_up: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    autocast: torch.dtype | None,
    logits_of: Callable[[nn.Module, Tensor], Tensor],
) -> list[float]:
    train = Timed(data.train)
    model.train()
    for number, batch in enumerate(train.batches(recipe.train.batch_size, seed=recipe.train.seed)):
        with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
            logits = logits_of(model, batch["input_ids"])
        F.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if number == steps:
            break
    return train.steps(warm_up)


def variants(recipe: Recipe, data: TextData, size: str) -> dict[str, Callable[[], list[float]]]:
    steps, warm_up = STEPS[size], WARM_UP[size]
    compute = choose("cpu")
    context, vocabulary = recipe.data.block_size, data.tokenizer.vocab_size
    plain = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "foreach": False}

    def bare() -> list[float]:
        model = build_model(recipe, data)
        optimizer = make_optimizer(model, recipe.train, compute.device, compute.precision)
        autocast = None if compute.precision == "fp32" else compute.dtype
        return run_bare(recipe, data, steps, warm_up, model, optimizer, autocast, lambda model, ids: model(ids))

    def nanogpt() -> list[float]:
        shape = {name: getattr(recipe.model, name) for name in ("num_layers", "num_heads", "width")}
        config = TransformerConfig(vocab_size=vocabulary, context_length=context, positions="learned", **shape)
        model = GPT(config)
        optimizer = torch.optim.AdamW(model.parameters(), **plain)
        return run_bare(recipe, data, steps, warm_up, model, optimizer, None, lambda model, ids: model(ids))

    def gpt2() -> list[float]:
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=vocabulary, n_positions=context, n_embd=recipe.model.width, n_layer=recipe.model.num_layers,
            n_head=recipe.model.num_heads, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False,
        )  # fmt: skip
        model = GPT2LMHeadModel(config)
        optimizer = torch.optim.AdamW(model.parameters(), **plain)
        return run_bare(recipe, data, steps, warm_up, model, optimizer, None, lambda model, ids: model(ids).logits)

    return {"fit": lambda: run_fit(recipe, data, steps, warm_up), "bare": bare, "nanogpt": nanogpt, "gpt2": gpt2}


def speed(rounds: int) -> None:
    print(
        f"{choose('cpu')}; {torch.get_num_threads()} threads; torch {torch.__version__}; {rounds} rounds, interleaved"
    )
    for size, overrides in SIZES.items():
        recipe = load_recipe("char_lm_cpu", overrides)
        with tempfile.TemporaryDirectory() as root:
            data = prepare(recipe.data, Path(root))
            contenders = variants(recipe, data, size)
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, run in contenders.items():
                    times[name].append(statistics.median(run()))
        tokens = recipe.train.batch_size * recipe.data.block_size
        print(f"\n{size}: {tokens:,} tokens a step\n{'':10}{'ms a step':>10}{'tokens/s':>10}{'fit is faster by':>18}")
        for name, medians in times.items():
            ratio = statistics.median(other / own for other, own in zip(medians, times["fit"]))
            median = statistics.median(medians)
            print(f"{name:10}{1e3 * median:10.1f}{tokens / median:10,.0f}{ratio:17.2f}x")


def quality(text: str) -> None:
    for precision in ("fp32", "bf16"):
        recipe = load_recipe(
            "char_lm_cpu", [f"data.corpus={text}", "data.splits=[0.9, 0.1, 0.0]", f"train.precision={precision}"]
        )
        with tempfile.TemporaryDirectory() as root:
            data = prepare(recipe.data, Path(root))
            model = build_model(recipe, data)
            start = time.perf_counter()
            fit(model, next_token, data, Run.create(root, "quality", recipe), recipe.train)
            seconds = time.perf_counter() - start
            loss = final_metrics(model, data, recipe.train)["validation"]["loss"]
        print(f"{precision}: validation loss {loss:.4f} after {recipe.train.max_steps} steps, {seconds:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender runs")
    parser.add_argument("--quality", metavar="TEXT_FILE", help="measure the small recipe's loss on this text instead")
    arguments = parser.parse_args()
    quality(arguments.quality) if arguments.quality else speed(arguments.rounds)
