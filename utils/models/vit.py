"""ViT: an image classifier made from the blocks. Leaves out resizing and normalising the pixels."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from utils.models.blocks import Block, TransformerConfig, init_weights, make_norm
from utils.models.model import Model


class ViTConfig(TransformerConfig):
    """The shape of a ViT. Images have no vocabulary, and their size fixes the context: those fields stay unset."""

    positions: Literal["learned"] = "learned"
    """how the order of patches enters"""
    tie_embeddings: Literal[False] = False
    """the head puts out classes, so there is nothing to tie it to"""
    image_size: int = Field(32, ge=1)
    """height and width of an image, in pixels"""
    patch_size: int = Field(4, ge=1)
    """height and width of a patch, in pixels"""
    channels: int = Field(3, ge=1)
    """numbers a pixel"""
    num_classes: int = Field(10, ge=1)
    """classes"""
    pooling: Literal["class", "mean"] = "class"
    """what the head reads: a class token before the patches, or the mean of the patches"""

    @model_validator(mode="after")
    def _image(self):
        for name in ("vocab_size", "context_length"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} {getattr(self, name)} says nothing of images; drop it")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        return self

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


class ViT(Model):
    """An encoder of patches (Dosovitskiy et al. 2021)."""

    kind = "image_classifier"

    def __init__(self, config: ViTConfig):
        super().__init__(config)
        class_token = config.pooling == "class"
        self.patches = nn.Conv2d(
            config.channels, config.width, config.patch_size, stride=config.patch_size, bias=config.bias
        )
        self.class_token = nn.Parameter(torch.empty(1, 1, config.width)) if class_token else None
        self.positions = nn.Parameter(torch.empty(config.num_patches + class_token, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, causal=False) for _ in range(config.num_layers))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.width, config.num_classes, bias=config.bias)
        init_weights(self, additions=2 * config.num_layers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (B, classes) of `pixel_values` (B, channels, H, W). Raises ValueError for images of another size."""
        config = self.config
        expected = (config.channels, config.image_size, config.image_size)
        if pixel_values.dim() != 4 or pixel_values.shape[1:] != expected:
            raise ValueError(
                f"pixel_values of shape {tuple(pixel_values.shape)} came; this ViT expects (B, {config.channels}, "
                f"{config.image_size}, {config.image_size}). Resize the images, or set model.image_size and "
                "model.channels to theirs."
            )
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)  # (B, patches, C), row by row
        if self.class_token is not None:
            x = torch.cat((self.class_token.expand(x.shape[0], -1, -1).to(x.dtype), x), dim=1)  # the class token first
        x = self.dropout(x + self.positions)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(x[:, 0] if self.class_token is not None else x.mean(1))
