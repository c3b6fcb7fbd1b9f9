"""ViT: its logits against those of transformers with the same weights, pooling, and the images it refuses."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers import ViTConfig as TheirConfig
from transformers import ViTForImageClassification

from utils.models.vit import ViT, ViTConfig


@pytest.fixture
def images():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_logits_equal_those_of_transformers_with_the_same_weights(make_vit, stir, renamed):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    shape |= {"image_size": 12, "patch_size": 4, "num_channels": 2, "num_labels": 7, "layer_norm_eps": 1e-5}
    theirs = stir(ViTForImageClassification(TheirConfig(**shape)))
    joined = {"attention.qkv": [f"attention.{part}_proj" for part in "qkv"]}
    names = {"vit.layers": "blocks", "vit.layernorm": "norm", "classifier": "head"}
    names |= {"vit.embeddings.cls_token": "class_token", "vit.embeddings.position_embeddings": "positions"}
    names |= {"vit.embeddings.patch_embeddings.projection": "patches", "attention.o_proj": "attention.out"}
    names |= {"layernorm_before": "norm_attention", "layernorm_after": "norm_feed_forward"}
    names |= {"mlp.fc1": "feed_forward.up", "mlp.fc2": "feed_forward.out"}
    ours = make_vit(image_size=12, channels=2, bias=True)
    weights = renamed(theirs.state_dict(), names, joined)
    ours.load_state_dict(weights | {"positions": weights["positions"][0]})
    images = torch.randn(5, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    assert_close(ours(images), theirs(images).logits)


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_the_order_of_patches_enters_by_the_positions_alone(make_vit, images, pooling):
    model = make_vit(pooling=pooling)
    swapped = torch.cat((images[..., 4:], images[..., :4]), dim=-1)  # left and right columns of patches
    assert (model(swapped) - model(images)).abs().max() > 1e-3
    with torch.no_grad():
        model.positions.zero_()
    assert_close(model(swapped), model(images))


@pytest.mark.parametrize("pooling", ["class", "mean"])
def test_changing_any_pixel_changes_the_logits(make_vit, images, pooling):
    model = make_vit(pooling=pooling)
    pixels = images.requires_grad_()
    gradient = torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0]
    assert (gradient != 0).all()


def test_mean_pooling_reads_the_mean_of_the_normed_patches(make_vit, images):
    model = make_vit(pooling="mean")
    seen = []
    model.norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = model(images)
    assert seen[0].shape == (3, 4, 32)  # no class token
    assert_close(logits, seen[0].sum(1) / 4 @ model.head.weight.T)


@pytest.mark.parametrize("size", [(3, 3, 8, 12), (3, 1, 8, 8), (3, 3, 16, 16), (3, 8, 8)])
def test_images_of_another_size_are_refused_with_both_sizes(make_vit, size):
    came = ", ".join(map(str, size))
    with pytest.raises(ValueError, match=rf"shape \({came}\) came; this ViT expects \(B, 3, 8, 8\)\. Resize"):
        make_vit()(torch.zeros(size))


def test_parameters_are_counted_in_closed_form():
    C, L, patches = 32, 3, 16
    shape = ViTConfig(width=C, num_layers=L, num_heads=4, image_size=16, patch_size=4, channels=2, num_classes=7)
    block = 4 * C * C + 2 * 4 * C * C + 2 * C  # attention, feed-forward, two norms
    mean = 2 * 4 * 4 * C + patches * C + L * block + C + C * 7
    assert ViT(shape.replace(pooling="mean")).num_parameters() == mean
    assert ViT(shape).num_parameters() == mean + C + C  # the class token and its position
    biases = C + L * (3 * C + C + 4 * C + C + 2 * C) + C + 7
    assert ViT(shape.replace(bias=True)).num_parameters() == mean + 2 * C + biases


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 50}, "vocab_size 50 says nothing of images; drop it"),
        ({"context_length": 64}, "context_length 64 says nothing of images; drop it"),
        ({"image_size": 30, "patch_size": 4}, "image_size 30 is not a multiple of patch_size 4"),
        ({"positions": "rotary"}, "positions\n.*'learned'.*input_value='rotary'"),
        ({"tie_embeddings": True}, "tie_embeddings\n.*False.*input_value=True"),
    ],
)
def test_fields_that_it_cannot_honour_are_refused_when_the_config_is_made(fields, message):
    with pytest.raises(ValueError, match=message):
        ViTConfig(**fields)
