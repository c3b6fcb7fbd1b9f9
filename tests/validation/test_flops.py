from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.flops import count, flops, multiplied
from utils.validation.steady import EFFORTS

SMOKE = EFFORTS["smoke"]


@pytest.mark.parametrize("tied", [True, False])
def test_of_a_gpt_they_are_those_of_its_matrices_and_of_attention(tied):
    V, C, L, T, B = 23, 32, 2, 10, 3
    model = GPT(TransformerConfig(vocab_size=V, context_length=16, num_layers=L, width=C, tie_embeddings=tied))
    counts = count(adapt(model), rows=B, length=T, seed=0)
    matrices = L * (3 * C * C + C * C + 8 * C * C) + V * C  # qkv, out, two of the feed-forward; head
    attention = L * 2 * (2 * T * T * C)  # q k' and weights v, each 2 T^2 hs for nh heads
    assert counts[""] == B * (2 * T * matrices + attention)
    assert counts["blocks.1.attention"] == B * (2 * T * 4 * C * C + 4 * T * T * C)
    assert counts["head"] == B * 2 * T * C * V


@pytest.mark.parametrize("tied", [True, False])
def test_the_rows_of_the_table_add_up_to_the_model(tied):
    model = GPT(TransformerConfig(vocab_size=23, context_length=16, num_layers=2, width=32, tie_embeddings=tied))
    check = flops(adapt(model), SMOKE)
    assert check.status == "pass"
    assert check.table["FLOPs"].sum() == count(adapt(model), rows=1, length=16, seed=0)[""]
    assert check.table["parameters"].sum() == model.num_parameters()
    assert check.table["share"].sum() == pytest.approx(1)
    assert multiplied(model) == model.num_parameters() - (0 if tied else 23 * 32)  # an untied table is looked up


class Encoder(nn.Module):
    kind, vocab_size, context_length = "classifier", 23, 16

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(23, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids):
        return self.head(self.encoder(self.embedding(input_ids)).mean(1))


def test_the_fast_path_of_torchs_encoder_is_counted_and_put_back():
    T, C = 6, 16
    adapter = adapt(Encoder().eval())
    counts = count(adapter, rows=1, length=T, seed=0)
    assert counts[""] == 2 * T * (4 * C * C + 2 * C * 32) + 4 * T * T * C + 2 * C * 3
    assert counts["encoder.layers.0.self_attn"] == 2 * T * 4 * C * C + 4 * T * T * C
    assert torch.backends.mha.get_fastpath_enabled()


def test_images_have_flops_of_their_patches():
    model = ViT(ViTConfig(num_layers=1, width=16, image_size=8, patch_size=4))
    counts = count(adapt(model), rows=1, length=1, seed=0)
    assert counts["patches"] == 2 * 4 * 16 * (3 * 4 * 4)  # 4 patches, each 48 pixels to 16
    assert flops(adapt(model), SMOKE).summary.count("an image") == 1


def test_recurrent_layers_count_their_products_with_input_and_state():
    class Recurrent(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.embedding, self.cell = nn.Embedding(23, 16), nn.LSTM(16, 23, batch_first=True)

        def forward(self, x):
            return self.cell(self.embedding(x))[0]

    # 4 gates of 23 units, each with 16 inputs and 23 states: 2 FLOPs for each, at each of 5 tokens
    counts = count(adapt(Recurrent()), rows=1, length=5, seed=0)
    assert counts["cell"] == counts[""] == 2 * 5 * 4 * 23 * (16 + 23)
