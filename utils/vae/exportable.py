"""`exportable_of` a run of `vae.recipes`: its encoder and its decoder as graphs of tensors alone.

The numbers are those of `vae.model`, which computes grids of like size together on a canvas of their own. That a graph
cannot; so here a whole batch lies on the largest canvas. Leaves out what is written of it (`publish`).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.core.run import Run
from utils.models.exportable import Exportable, Part
from utils.training.exportable import metrics_at, named, results
from utils.training.runs import best_checkpoint
from utils.vae.config import PATCH, PLACES
from utils.vae.decoded import Decoded, rectangles, sizes_of
from utils.vae.model import LOGVAR, BetaVAE
from utils.vae.palette import UNUSED
from utils.vae.recipes import Trained, open_trained

CANVAS = PLACES * PATCH
BOUNDS = ("elbo", "bits_per_cell")  # nats a grid, and bits inside grids; kl and nll are among what training logs
BATCHES = (2, 1, 5, 3)  # grids: what the graphs are exported with, then what they are proven on


def exportable_of(run: Run | Path, *, license: str = "") -> Exportable:
    """What publishing needs of a VAE's run: the weights that training leaves, on the CPU in fp32."""
    trained = open_trained(run.path if isinstance(run, Run) else run)
    model, recipe = trained.model.float().eval(), trained.recipe
    return Exportable(
        run=trained.run,
        name=recipe.name,
        family=recipe.family,
        kind="vae",
        step=trained.step,
        model=model,
        loader="ours",
        builds=f"{BetaVAE.__module__}:{BetaVAE.__name__}",
        config=model.config.model_dump(mode="json"),
        metrics=metrics_at(trained.run, trained.step) | judged(trained),
        parts=grid_parts(model),
        license=license,
        data=trained.fingerprint,
        note=trained.note or note_of(trained),
    )


def judged(trained: Trained) -> dict[str, float | dict[str, float]]:
    """What the run's evaluation measured, with 95% intervals over tasks; {} where it judged other weights."""
    content = results(trained.run)
    if content.get("config", {}).get("checkpoint", {}).get("step") != trained.step:
        return {}
    return named(
        {
            split: {**found["reconstruction"], **{name: found["bounds"][name] for name in BOUNDS}}
            for split, found in content["results"].items()
        }
    )


def note_of(trained: Trained) -> str:
    """What to tell where the recipe keeps the last weights, and others were better by the validation loss."""
    best = best_checkpoint(trained.run)
    if trained.recipe.train.restore_best or best.step == trained.step:
        return ""
    return (
        f"The weights of step {trained.step} are the last, as train.restore_best=false asks; those of step {best.step}"
        " have the lowest validation loss."
    )


def grid_parts(model: BetaVAE) -> tuple[Part, Part]:
    """encoder: `grids` (B, 30, 30) to `posterior` (B, 2, D); decoder: `latents` (B, D) to `logits` (B, 11, 30, 30)."""
    grids = [{"grids": random_grids(rows)} for rows in BATCHES]
    encoder, decoder = GridEncoder(model).eval(), GridDecoder(model).eval()
    with torch.no_grad():
        latents = [{"latents": encoder(**one)[:, 0].contiguous()} for one in grids]
    axes = {name: {0: "batch"} for name in ("grids", "posterior", "latents", "logits")}
    return (
        Part("encoder", encoder, grids[0], tuple(grids[1:]), {k: axes[k] for k in ("grids", "posterior")}, "posterior"),
        Part("decoder", decoder, latents[0], tuple(latents[1:]), {k: axes[k] for k in ("latents", "logits")}),
    )


def random_grids(rows: int) -> Tensor:
    """Canvases (rows, 30, 30) int64 of grids of any size and few colours; the same every time."""
    generator = torch.Generator().manual_seed(rows)
    heights, widths = torch.randint(1, SIDE + 1, (2, rows), generator=generator)
    colours = torch.randint(2, COLOURS + 1, (rows, 1, 1), generator=generator)
    cells = torch.randint(COLOURS, (rows, SIDE, SIDE), generator=generator) % colours
    return torch.where(rectangles(heights, widths), cells, OUTSIDE)


class GridEncoder(nn.Module):
    """mu and log-variance of q(z|x), as one tensor."""

    def __init__(self, model: BetaVAE):
        super().__init__()
        self.encoder = model.encoder

    def forward(self, grids: Tensor) -> Tensor:
        """Canvases (B, 30, 30) int64, 10 outside, to (B, 2, D)."""
        encoder, B = self.encoder, grids.shape[0]
        if encoder.config.architecture == "dense":
            both = encoder.dense(grids)
        else:
            cells, palette = (grids, None) if encoder.palette is None else factored(grids)
            cells = F.pad(cells, (0, CANVAS - SIDE, 0, CANVAS - SIDE), value=OUTSIDE)
            overall, local = encoder.spatial._part(cells, *sizes_of(grids), CANVAS)
            named = [] if palette is None else [encoder.palette(palette).view(B, 2, -1)]
            both = torch.cat([overall.view(B, 2, -1), *named, local.reshape(B, 2, -1)], 2)  # as `config.groups`
        mu, logvar = both.unbind(1)
        return torch.stack((mu, logvar.clamp(*LOGVAR)), 1)


class GridDecoder(nn.Module):
    """log p of each cell's value, 10 being outside, at the likeliest size of the grid."""

    def __init__(self, model: BetaVAE):
        super().__init__()
        self.decoder = model.decoder

    def forward(self, latents: Tensor) -> Tensor:
        """z (B, D) to (B, 11, 30, 30)."""
        decoder, B = self.decoder, latents.shape[0]
        if decoder.config.architecture == "dense":
            return decoder(latents).cells()
        parts = {name: latents[:, place] for name, place in decoder.config.groups.items()}
        overall, local = parts["overall"], parts["map"].view(B, -1, PLACES, PLACES)
        palette = None if decoder.palette is None else decoder.palette(parts["colours"])

        def draw(heights: Tensor, widths: Tensor) -> Tensor:
            return decoder.spatial._part(overall, local, heights, widths, CANVAS)[:, :SIDE, :SIDE]

        return Decoded(draw, decoder.spatial.sizes(overall), palette).cells()


def factored(grids: Tensor) -> tuple[Tensor, Tensor]:
    """As `palette.factor`, of comparisons and sums alone: ONNX has no stable sort."""
    one_hot = F.one_hot(grids.flatten(1), COLOURS + 1)[..., :COLOURS]  # (B, 900, 10)
    area = one_hot.shape[1]
    found = one_hot.sum(1)  # cells of each colour
    place = torch.arange(area, device=grids.device)[:, None]
    first = torch.where(one_hot.bool(), place, area).amin(1)  # where it is first met
    score = found * (area + 1) - first  # (B, 10)
    colour = torch.arange(COLOURS, device=grids.device)
    before = (score[:, None] > score[:, :, None]) | ((score[:, None] == score[:, :, None]) & (colour < colour[:, None]))
    slots = before.sum(2)  # (B, 10): slot of each colour
    at = slots[:, :, None] == colour  # (B, colour, slot)
    used = (at & (found > 0)[:, :, None]).any(1)
    palette = torch.where(used, (at * colour[:, None]).sum(1), UNUSED)
    return F.pad(slots, (0, 1), value=OUTSIDE).gather(1, grids.flatten(1)).view_as(grids), palette
