"""`VAEConfig`: the shape of a beta-VAE, and what it is trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from utils.core.config import Config

PATCH = 4  # cells of a grid's side to a place of the latent map
PLACES = 8  # places of the latent map's side: 8 times 4 cells cover the 30 of a canvas
MAPPED = ("palette", "spatial")
READ_BY = {
    "channels": ("architecture", MAPPED),
    "overall": ("architecture", MAPPED),
    "colours": ("architecture", ("palette",)),
    "latents": ("architecture", ("dense",)),
    "widths": ("architecture", MAPPED),
    "blocks": ("architecture", MAPPED),
    "part": ("architecture", MAPPED),
    "padding_weight": ("architecture", ("dense",)),
    "rise": ("schedule", ("linear", "cosine", "cyclical")),
    "cycles": ("schedule", ("cyclical",)),
}
"""settings that mean something under some choices of another alone: which, and under what"""


class VAEConfig(Config):
    """A beta-VAE over grids. Sizes of latents are in numbers a grid, or a place of the 8x8 map where it says so.

    A setting that the architecture or the schedule does not read (`READ_BY`) is refused unless it has its default.
    """

    architecture: Literal["palette", "spatial", "dense"] = "palette"
    """palette: a map of latents codes which cells are alike, others name the colours; spatial: a map codes the colours
    themselves; dense: convolutions to one vector, the classical one"""
    channels: int = Field(16, ge=1)
    """latents a place of the map (palette and spatial)"""
    overall: int = Field(16, ge=1)
    """latents of the whole grid: its size and what else every place may know (palette and spatial)"""
    colours: int = Field(32, ge=1)
    """latents of the colours (palette)"""
    latents: int = Field(128, ge=1)
    """size of the one vector (dense)"""
    widths: tuple[int, int] = (48, 128)
    """channels of the convolutions at a half and a quarter of the grid's side (palette and spatial)"""
    blocks: tuple[int, int] = (2, 2)
    """residual blocks at each of the two, in the encoder and again in the decoder (palette and spatial)"""
    part: int = Field(16, ge=1)
    """grids of like size computed together, on a canvas no larger than they need (palette and spatial)"""

    beta: float = Field(0.05, ge=0)
    """weight of the KL term, at its highest; 0 makes an autoencoder"""
    schedule: Literal["constant", "linear", "cosine", "cyclical", "classical"] = "linear"
    """how beta comes to be: at once, in a rise over `rise` of training, in `cycles` rises, or 0.1, 1, 2, 2 times beta
    at epochs 1, 10, 30, 50 of 50"""
    rise: float = Field(0.2, gt=0, le=1)
    """share of training (cyclical: of each cycle) over which beta rises"""
    cycles: int = Field(4, ge=1)
    """cycles of the cyclical schedule"""
    capacity: float | None = Field(None, ge=0)
    """nats of KL to hold a grid at: beta then weighs |KL - capacity|, the capacity rising as the schedule says; null:
    the KL itself"""
    free_bits: float = Field(0.0, ge=0)
    """nats of each latent, averaged over the batch, that cost nothing"""
    padding_weight: float = Field(1.0, ge=0)
    """weight of the cells outside the grid (dense; the others code the size instead of them)"""

    @model_validator(mode="after")
    def _consistent(self):
        if min(self.widths) < 1 or min(self.blocks) < 0:
            raise ValueError(f"widths {self.widths} must be at least 1 and blocks {self.blocks} at least 0")
        if self.capacity is not None and self.free_bits:
            raise ValueError("capacity and free_bits both bound the KL from below; drop one of them")
        fields = type(self).model_fields
        for name, (choice, under) in READ_BY.items():  # at its default, a setting says nothing
            if getattr(self, choice) not in under and getattr(self, name) != fields[name].default:
                raise ValueError(
                    f"{choice} {getattr(self, choice)} does not read {name} (now {getattr(self, name)}, which"
                    f" {' and '.join(under)} do); drop it, or leave it at {fields[name].default}"
                )
        return self

    @property
    def groups(self) -> dict[str, slice]:
        """Where each kind of latent stands in z (B, latent_size); `map` is (channels, 8, 8), in reading order."""
        if self.architecture == "dense":
            return {"dense": slice(0, self.latents)}
        sizes = {"overall": self.overall, "map": self.channels * PLACES**2}
        if self.architecture == "palette":
            sizes = {"overall": self.overall, "colours": self.colours, "map": sizes["map"]}
        groups, at = {}, 0
        for name, size in sizes.items():
            groups[name], at = slice(at, at + size), at + size
        return groups

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return max(group.stop for group in self.groups.values())

    def arithmetic(self) -> dict[str, Any]:
        """The settings that decide the weights."""
        return self.model_dump(mode="json")


def readable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a `VAEConfig` without those that its architecture and its schedule do not read."""
    chosen = {name: settings.get(name, VAEConfig.model_fields[name].default) for name in ("architecture", "schedule")}
    return {
        name: value
        for name, value in settings.items()
        if name not in READ_BY or chosen[READ_BY[name][0]] in READ_BY[name][1]
    }
