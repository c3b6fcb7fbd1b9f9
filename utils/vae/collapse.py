"""Whether a decoder makes use of its latents, and what to change where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas

from utils.core.check import Check
from utils.vae.latents import ACTIVE_KL, LatentUse

COLLAPSE = "latents in use"
LEAST_SHARE = 0.25  # of the nats that describe a grid


def collapse_check(use: LatentUse, *, foreground: float, settings: Mapping[str, Any] | None = None) -> Check:
    """Whether the decoder draws grids from their latents, or from what all grids have in common.

    Collapsed, whatever its pixel accuracy, where any of these holds: under 5% of the dimensions that some grid reaches
    are active; latents carry under a quarter of the nats that describe a grid; they save under 10% of those of a grid
    whose size is known; under 5% of the foreground cells come out right. `settings` (`beta`, `architecture`, ...) are
    named in what to change.

    The quarter lies between trainings whose share was measured on validation grids. Below: dense under the classical
    preset, 4%, 7% and 16% (70,000, 300,000 and 1,400,000 grids), and 12% once its beta is 2, with 0.3% of the grids
    exact throughout; palette with beta 1 after 28,000 grids, 20%, which one colour at the true size surpasses. Above:
    dense with beta 0.05, 31% (50,000 grids); palette with beta 0.2, 70% (28,000), and with the default 0.05, 40%
    (19,000) to 96% (the whole recipe). The other three limits were met by none of them.
    """
    signs = []
    if use.active < 0.05 * use.dimensions:
        signs.append(f"{use.active} of {use.dimensions} latent dimensions carry more than {ACTIVE_KL} nats")
    if use.share < LEAST_SHARE:
        signs.append(
            f"latents carry {use.kl:.1f} of the {use.kl + use.nll:.1f} nats of a grid, under {LEAST_SHARE:.0%}"
        )
    if use.content < 0.1:
        signs.append(f"a grid's own latents save {use.content:.1%} of its nats against those of another of its size")
    if foreground < 0.05:
        signs.append(f"{foreground:.1%} of the foreground cells are right")
    table = pandas.DataFrame(
        {
            "what": [
                "active dimensions",
                "KL, nats a grid",
                "of all nats of a grid",
                "nats a grid that own latents save",
                "share saved among grids of one size",
                "foreground cells right",
            ],
            "value": [
                f"{use.active} of {use.dimensions}",
                f"{use.kl:.4g}",
                f"{use.share:.1%}",
                f"{use.gain:.4g}",
                f"{use.content:.1%}",
                f"{foreground:.1%}",
            ],
        }
    )
    if not signs:
        summary = f"{use.active} of {use.dimensions} dimensions are active and carry {use.kl:.1f} nats a grid"
        return Check(COLLAPSE, "pass", f"{summary}; own latents save {use.gain:.1f} nats", table)
    return Check(COLLAPSE, "fail", f"collapsed: {'; '.join(signs)}. {_advice(settings or {})}", table)


def _advice(settings: Mapping[str, Any]) -> str:
    beta, architecture = settings.get("beta"), settings.get("architecture")
    twice = ", and twice that at the end of its classical schedule" if settings.get("schedule") == "classical" else ""
    now = f" (now {beta:g}{twice})" if isinstance(beta, (int, float)) else ""
    low = isinstance(beta, (int, float)) and beta <= 0.05
    gentle = settings.get("schedule") in ("linear", "cosine") and settings.get("rise", 0) >= 0.2
    steps = [f"{'keep beta' if low else 'lower beta'}{now}{'' if low else ' to about 0.05'}"]
    if beta == 0:
        steps = ["beta is 0, so nothing but the training holds the latents back"]
    elif not gentle:
        steps.append("let it rise over the first fifth of training (model.schedule=linear)")
    first = ", ".join(steps)
    advice = f"{first}: train longer" if beta == 0 else f"{first} and train longer"
    advice = advice[0].upper() + advice[1:]
    if architecture == "dense":
        return f"{advice}; or take architecture: palette in place of dense, whose latents keep where things are."
    return f"{advice}."
