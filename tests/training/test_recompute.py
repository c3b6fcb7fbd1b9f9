"""Gradient checkpointing: the same gradients, fewer kept tensors, and nothing of it afterwards."""

import pytest
import torch
from torch import nn

from utils.core.config import ConfigError
from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.training.recompute import recomputed

SHAPE = {"num_layers": 4, "num_heads": 2, "width": 32, "dropout": 0.1}
TEXT = {**SHAPE, "vocab_size": 11, "context_length": 16}
IDS = torch.randint(11, (3, 16), generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class GPT2(nn.Module):
    """One of transformers, inside a module of our own."""

    def __init__(self):
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        self.model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=16, n_embd=32, n_layer=4, n_head=2))

    def forward(self, input_ids):
        return self.model(input_ids=input_ids, use_cache=False).logits


MODELS = {
    "gpt": (lambda: GPT(TransformerConfig(**TEXT)), {"input_ids": IDS}),
    "bert": (lambda: BERT(TransformerConfig(**TEXT)), {"input_ids": IDS}),
    "t5": (lambda: T5(T5Config(**TEXT)), {"input_ids": IDS, "decoder_input_ids": IDS[:, :9]}),
    "vit": (lambda: ViT(ViTConfig(**SHAPE, image_size=8, patch_size=2)), {"pixel_values": IMAGES}),
    "transformers": (GPT2, {"input_ids": IDS}),
}


def gradients(model, batch):
    """The gradients of a pass, and how many numbers autograd kept for it."""
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(1)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch).square().mean()
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found, sum(kept)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same_and_fewer_numbers_are_kept(name):
    make, batch = MODELS[name]
    torch.manual_seed(0)
    model = make().train()
    plain, many = gradients(model, batch)
    with recomputed(model):
        again, few = gradients(model, batch)
    assert set(plain) == set(again)
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert few < many / 2
    assert gradients(model, batch)[1] == many  # as before


def test_a_model_without_blocks_is_refused_before_anything_is_trained(train):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 10)

        def forward(self, input_ids, attention_mask=None):
            return self.table(input_ids)

    with pytest.raises(ConfigError, match="Plain has neither blocks"):
        train(Plain(), gradient_checkpointing=True)
    with recomputed(Plain(), on=False):
        pass


def test_fit_computes_each_block_twice_in_training_alone_and_learns_the_same(train, tiny_model, trace):
    traces, calls = [], []
    for on in (False, True):
        model, seen = tiny_model(dropout=0.2), {True: 0, False: 0}
        model.blocks[0].feed_forward.register_forward_hook(
            lambda module, *_, seen=seen: seen.__setitem__(
                module.training and torch.is_grad_enabled(), seen[module.training and torch.is_grad_enabled()] + 1
            )
        )
        traces.append(trace(train(model, gradient_checkpointing=on).run))
        calls.append(seen)
        assert not any(block.recompute for block in model.blocks)
    assert calls[0][True] == 10  # steps
    assert calls[1][True] == 20
    assert calls[1][False] == calls[0][False]
    assert traces[0].equals(traces[1])
