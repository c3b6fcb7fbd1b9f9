"""What holds for every model made from the blocks: health at the start, learning, bf16, and weights that travel."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig

SHAPE = {"num_layers": 2, "num_heads": 4, "width": 32}
TEXT = {**SHAPE, "vocab_size": 50, "context_length": 8}
KINDS = {"causal_lm": GPT, "masked_lm": BERT, "seq2seq": T5, "image_classifier": ViT}
kinds = pytest.mark.parametrize("kind", KINDS)


@dataclass
class Case:
    """A freshly initialised model of 50 classes or tokens, its inputs, and random labels."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    labels: Tensor

    def loss(self) -> Tensor:
        return F.cross_entropy(self.model(*self.inputs).flatten(0, -2), self.labels.flatten())


def case(kind: str, **fields) -> Case:
    torch.manual_seed(0)
    ids, labels = torch.randint(0, 50, (2, 8, 8))
    if kind == "image_classifier":
        model = ViT(ViTConfig(**SHAPE, image_size=8, patch_size=4, num_classes=50, **fields))
        return Case(model, (torch.randn(64, 3, 8, 8),), labels.flatten())
    if kind == "seq2seq":
        return Case(T5(T5Config(**TEXT, **fields)), (torch.randint(0, 50, (8, 6)), ids), labels)
    return Case(KINDS[kind](TransformerConfig(**TEXT, **fields)), (ids,), labels)


@kinds
def test_a_model_declares_its_kind_and_keeps_its_config(kind):
    model = case(kind).model
    assert model.kind == kind
    assert model.config.width == 32


@kinds
def test_an_untrained_model_knows_nothing_and_every_parameter_has_a_gradient(kind):
    fresh = case(kind, bias=True)
    loss = fresh.loss()
    # Logits of variance 32 * 0.02^2 = 0.013 add half of it to ln 50, and 64 labels scatter by 0.113 / 8 = 0.014.
    assert loss.item() == pytest.approx(math.log(50) + 0.006, abs=0.06)
    loss.backward()
    for name, parameter in fresh.model.named_parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any(), name


@kinds
def test_a_batch_is_learnt_by_heart(kind):
    fresh = case(kind)
    optimizer = torch.optim.AdamW(fresh.model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        fresh.loss().backward()
        optimizer.step()
    assert fresh.loss().item() < 0.1  # of ln 50 = 3.9 at the start


@kinds
def test_a_row_is_read_alike_alone_and_in_a_batch(kind):
    fresh = case(kind)
    logits = fresh.model(*fresh.inputs)
    for row in (0, 5):
        assert_close(fresh.model(*(x[row : row + 1] for x in fresh.inputs)), logits[row : row + 1])


@kinds
@pytest.mark.parametrize("whole", [True, False])
def test_bf16_logits_are_those_of_float32_to_a_few_percent(kind, whole, stir):
    fresh = case(kind, dropout=0.1)
    stir(fresh.model)
    exact = fresh.model(*fresh.inputs)
    if whole:
        fresh.model.bfloat16()
        inputs = (x.bfloat16() if x.is_floating_point() else x for x in fresh.inputs)
        rounded = fresh.model(*inputs)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            rounded = fresh.model(*fresh.inputs)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@kinds
def test_weights_saved_from_one_model_make_another_the_same(kind):
    one, other = case(kind), case(kind)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.add_(1)
    file = io.BytesIO()
    torch.save(one.model.state_dict(), file)
    file.seek(0)
    other.model.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.model(*one.inputs), one.model(*one.inputs))


@kinds
def test_dropout_makes_training_random_and_leaves_evaluation_alone(kind):
    fresh = case(kind, dropout=0.3)
    assert not torch.equal(fresh.model(*fresh.inputs), fresh.model(*fresh.inputs))
    fresh.model.eval()
    assert torch.equal(fresh.model(*fresh.inputs), fresh.model(*fresh.inputs))
    plain = case(kind).model
    plain.load_state_dict(fresh.model.state_dict())
    assert torch.equal(fresh.model(*fresh.inputs), plain(*fresh.inputs))


@kinds
def test_embeddings_are_dropped_by_their_share_before_the_first_block(kind):
    fresh, seen = case(kind, dropout=0.5), []
    stacks = [fresh.model.encoder, fresh.model.decoder] if kind == "seq2seq" else [fresh.model]
    for stack in stacks:
        stack.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    fresh.model(*fresh.inputs)
    for x in seen:  # of 6 * 8 * 32 numbers or more, a share scatters by 0.5 / 39
        assert (x == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert len(seen) == len(stacks)


@pytest.mark.parametrize("kind", ["causal_lm", "masked_lm", "seq2seq"])
@pytest.mark.parametrize("missing", ["vocab_size", "context_length"])
def test_a_shape_without_a_vocabulary_or_a_context_is_refused(kind, missing):
    shape = T5Config if kind == "seq2seq" else TransformerConfig
    with pytest.raises(ValueError, match=r"needs model\.vocab_size and model\.context_length"):
        KINDS[kind](shape(**{**TEXT, missing: None}))
