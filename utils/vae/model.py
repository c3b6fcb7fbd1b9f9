"""`BetaVAE`: a grid to a Gaussian over z, and z to a distribution over canvases (Kingma and Welling 2014).

Leaves out what it is trained for (`vae.objective`) and better priors to sample z from (`vae.sampler`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utils.arc.grids import SIDE
from utils.vae.config import VAEConfig
from utils.vae.decoded import Decoded, Terms, sizes_of
from utils.vae.dense import DenseDecoder, DenseEncoder
from utils.vae.palette import PaletteDecoder, PaletteEncoder, factor
from utils.vae.spatial import SpatialDecoder, SpatialEncoder

LOGVAR = (-10.0, 6.0)  # bounds of the log-variance, so that no exponential overflows
NARROW = -4.0  # log-variance to begin with: at the prior's 0, noise drowns what an untrained encoder says


class Encoder(nn.Module):
    """Canvases (B, 30, 30) to mu and log-variance (B, D), grouped as `config.groups`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        if config.architecture == "dense":
            self.dense = DenseEncoder(config)
        else:
            self.spatial = SpatialEncoder(config)
            self.palette = PaletteEncoder(config.colours) if config.architecture == "palette" else None
        for layer in self._last():
            _, logvar = layer.bias.data.chunk(2)
            logvar.fill_(NARROW)

    def _last(self) -> list[nn.Module]:
        """The layers that put out mu and log-variance, in this order."""
        if self.config.architecture == "dense":
            return [self.dense.latents]
        return [self.spatial.overall, self.spatial.map, *([] if self.palette is None else [self.palette.layers[-1]])]

    def forward(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        if grids.ndim != 3 or grids.shape[1:] != (SIDE, SIDE) or grids.is_floating_point():
            raise ValueError(f"Grids are {tuple(grids.shape)} {grids.dtype}; expected integers of (B, {SIDE}, {SIDE}).")
        if self.config.architecture == "dense":
            both = self.dense(grids.long())
        else:
            cells, palette = (grids.long(), None) if self.palette is None else factor(grids)
            parts = list(self.spatial(cells, *sizes_of(grids)))
            if self.palette is not None:
                parts.insert(1, self.palette(palette).view(len(grids), 2, -1))
            both = torch.cat([part.float() for part in parts], 2)  # (B, 2, D)
        mu, logvar = both.unbind(1)
        return mu, logvar.clamp(*LOGVAR)


class Decoder(nn.Module):
    """Latents (B, D) to `Decoded`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        if config.architecture == "dense":
            self.dense = DenseDecoder(config)
        else:
            self.spatial = SpatialDecoder(config)
            self.palette = PaletteDecoder(config.colours) if config.architecture == "palette" else None

    def forward(self, z: Tensor) -> Decoded:
        if z.ndim != 2 or z.shape[1] != self.config.latent_size:
            raise ValueError(f"Latents are {tuple(z.shape)}; this model has (B, {self.config.latent_size}).")
        if self.config.architecture == "dense":
            logits = self.dense(z)
            return Decoded(lambda heights, widths: logits, self.dense.sizes(z))
        parts = {name: z[:, place] for name, place in self.config.groups.items()}
        overall, local = parts["overall"], parts["map"]
        palette = None if self.palette is None else self.palette(parts["colours"])
        return Decoded(
            lambda heights, widths: self.spatial(overall, local, heights, widths),
            self.spatial.sizes(overall),
            palette,
        )


class BetaVAE(nn.Module):
    """Encoder and decoder, with the draw of z between them."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def encode(self, grids: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log-variance (B, D) of q(z|x), for canvases (B, 30, 30) of integers."""
        return self.encoder(grids)

    def decode(self, z: Tensor) -> Decoded:
        """p(x|z) for z (B, D)."""
        return self.decoder(z)

    def forward(
        self, grids: Tensor, heights: Tensor, widths: Tensor, *, noise: Tensor | None = None
    ) -> tuple[Terms, Tensor]:
        """The terms of -log p(x|z) at z = mu + sigma * noise, and the KL of each latent (B, D), in nats.

        `noise` (B, D) is drawn where it is not given.
        """
        mu, logvar = self.encode(grids)
        noise = torch.randn_like(mu) if noise is None else noise
        z = mu + (0.5 * logvar).exp() * noise
        return self.decode(z).terms(grids, heights, widths), gaussian_kl(mu, logvar)

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor:
        """The likeliest canvases (B, 30, 30) uint8 at the posterior means."""
        return self.decode(self.encode(batch["grids"])[0]).mode

    @torch.no_grad()
    def sample(self, n: int, *, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """The likeliest canvases (n, 30, 30) of z drawn from N(0, temperature^2 I)."""
        z = torch.randn(n, self.config.latent_size, generator=generator) * temperature
        return self.decode(z.to(next(self.parameters()).device)).mode


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent, in nats, shaped as `mu`."""
    return 0.5 * (logvar.exp() + mu.square() - 1 - logvar)
