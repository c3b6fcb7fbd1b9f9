"""Reconstruction of unseen ARC grids: our beta-VAE against pythae's, for equal CPU seconds on the same batches.

    pip install -c requirements.txt -e '.[bench]'
    python benchmarks/vae.py [--seconds 100] [--recipe vae]

pythae's BetaVAE has its default (MLP) encoder and decoder over the one-hot canvas, 128 latents, a Bernoulli likelihood
and its own loss; its betas are tried in turn, and the best is kept. CPU seconds are those of the process spent in
training steps. Both are judged on whole validation tasks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arc.grids import OUTSIDE
from utils.core.device import choose, keep_freed_memory
from utils.training.optim import learning_rate, make_optimizer
from utils.vae.data import GridData
from utils.vae.metrics import grid_counts, rates
from utils.vae.objective import make_elbo
from utils.vae.recipes import VAERecipe, build_model, load_recipe, prepare

LATENTS = 128
SHOWN = ("all", "non_padding", "foreground", "exact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100.0, help="CPU seconds of training for each model")
    parser.add_argument("--recipe", default="vae")
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "run-all-bench")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    data = prepare(recipe, arguments.root)
    keep_freed_memory()
    print(f"{arguments.seconds:.0f} CPU seconds each, {torch.get_num_threads()} threads, {len(data.validation)} grids")
    rows = {f"ours ({arguments.recipe})": train_ours(recipe, data, arguments.seconds)}
    for beta in (0.05, 0.5):
        rows[f"pythae BetaVAE, beta {beta}"] = train_pythae(recipe, data, beta, arguments.seconds)
    for name, (grids, parameters, found) in rows.items():
        shares = "  ".join(f"{key} {found[key]:.1%}" for key in SHOWN)
        print(f"{name:28s} {parameters / 1e6:5.2f}M parameters  {grids:7,} grids  {shares}")


def train_ours(recipe: VAERecipe, data: GridData, seconds: float) -> tuple[int, int, dict[str, float]]:
    """In a bare loop with the recipe's optimiser; the schedule is stretched over the seconds."""
    model, compute = build_model(recipe), choose("cpu", recipe.train.precision)
    optimizer = make_optimizer(model, recipe.train, compute.device, compute.precision)
    objective, config = make_elbo(recipe.model, 1000), recipe.train.replace(max_steps=1000, warmup_steps=50)

    def step(batch: dict[str, Tensor], progress: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(int(1000 * progress), 1000, config)
        with torch.autocast("cpu", torch.bfloat16, enabled=compute.precision == "bf16"):
            loss = objective(model, batch, int(1000 * progress))["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    grids = train(step, data, recipe.train.batch_size, seconds)
    model.eval()
    return grids, _size(model), judge(lambda batch: model.reconstruct(batch), data)


def train_pythae(recipe: VAERecipe, data: GridData, beta: float, seconds: float) -> tuple[int, int, dict[str, float]]:
    from pythae.models import BetaVAE, BetaVAEConfig

    torch.manual_seed(recipe.train.seed)
    shape = (OUTSIDE + 1, 30, 30)
    model = BetaVAE(BetaVAEConfig(input_dim=shape, latent_dim=LATENTS, reconstruction_loss="bce", beta=beta))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(batch: dict[str, Tensor], progress: float) -> None:
        model(one_hot(batch))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    def reconstruct(batch: dict[str, Tensor]) -> Tensor:
        mean = model.encoder(one_hot(batch)["data"]).embedding
        return model.decoder(mean).reconstruction.view(-1, *shape).argmax(1).to(torch.uint8)

    grids = train(step, data, recipe.train.batch_size, seconds)
    model.eval()
    return grids, _size(model), judge(reconstruct, data)


def train(step: Callable[[dict[str, Tensor], float], None], data: GridData, rows: int, seconds: float) -> int:
    """Steps until the process has spent so many CPU seconds in them; the grids seen."""
    spent, grids = 0.0, 0
    for batch in forever(data, rows):
        start = time.process_time()
        step(batch, spent / seconds)
        spent, grids = spent + time.process_time() - start, grids + len(batch["grids"])
        if spent >= seconds:
            return grids
    raise AssertionError("the batches never end")


def forever(data: GridData, rows: int) -> Iterator[dict[str, Tensor]]:
    for epoch in count():
        yield from data.train.batches(rows, seed=0, epoch=epoch)


def one_hot(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"data": F.one_hot(batch["grids"].long(), OUTSIDE + 1).permute(0, 3, 1, 2).float()}


@torch.no_grad()
def judge(reconstruct: Callable[[dict[str, Tensor]], Tensor], data: GridData) -> dict[str, float]:
    predicted = torch.cat([reconstruct(batch) for batch in data.validation.batches(256)])
    return rates(grid_counts(predicted, data.validation.grids))


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
