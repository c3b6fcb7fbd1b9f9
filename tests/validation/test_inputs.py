from __future__ import annotations

import torch

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.inputs import logits_at, values_of


def test_putting_the_embeddings_of_other_ids_in_place_gives_the_logits_of_those_ids():
    torch.manual_seed(0)
    adapter = adapt(GPT(TransformerConfig(vocab_size=11, context_length=8, num_layers=1, width=16)).eval())
    one, other = adapter.batch(2, 5, seed=0), adapter.batch(2, 5, seed=1)
    values = values_of(adapter, other)
    assert torch.equal(values, adapter.embedding(other["input_ids"]))
    assert torch.equal(logits_at(adapter, one, values), adapter(other))


def test_only_the_source_of_a_seq2seq_model_is_replaced():
    torch.manual_seed(0)
    adapter = adapt(T5(T5Config(vocab_size=11, context_length=8, num_layers=1, width=16)).eval())
    one, other = adapter.batch(2, 5, seed=0), adapter.batch(2, 5, seed=1)
    mixed = dict(one, input_ids=other["input_ids"])
    assert torch.equal(logits_at(adapter, one, values_of(adapter, other)), adapter(mixed))


def test_pixels_are_their_own_values():
    adapter = adapt(ViT(ViTConfig(num_layers=1, width=16, image_size=8)).eval())
    one, other = adapter.batch(2, 1, seed=0), adapter.batch(2, 1, seed=1)
    assert torch.equal(logits_at(adapter, one, values_of(adapter, other)), adapter(other))
