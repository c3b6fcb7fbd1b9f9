"""BERT: what each token sees, padding, and its logits against those of transformers with the same weights."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.testing import assert_close
from transformers import RobertaPreLayerNormConfig, RobertaPreLayerNormForMaskedLM

from utils.models.bert import BERT, ClassifierConfig, TextClassifier
from utils.models.blocks import TransformerConfig

POSITIONS = ("learned", "sinusoidal", "rotary", "alibi")
kinds = pytest.mark.parametrize("kind", [{"positions": kind} for kind in POSITIONS] + [{"num_kv_heads": 2}], ids=str)


@pytest.fixture
def ids():
    return torch.randint(0, 23, (3, 10), generator=torch.Generator().manual_seed(0))


@kinds
def test_changing_a_token_changes_the_logits_of_every_place(make_bert, ids, kind):
    model = make_bert(**kind)
    logits = model(ids)
    for t in range(10):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 23
        assert ((model(changed) - logits).abs().amax((0, 2)) > 1e-3).all()


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logits_of_real_tokens_whatever_its_id(make_bert, ids, kind, side):
    model = make_bert(**kind)
    lengths = (4, 7, 10)
    for pad_id in (0, 22):
        padded, mask = torch.full((3, 11), pad_id), torch.zeros(3, 11, dtype=torch.long)
        place = [slice(11 - n, 11) if side == "left" else slice(0, n) for n in lengths]
        for row, (n, at) in enumerate(zip(lengths, place)):
            padded[row, at], mask[row, at] = ids[row, :n], 1
        logits = model(padded, mask)
        assert logits.isfinite().all()
        for row, (n, at) in enumerate(zip(lengths, place)):
            assert_close(logits[row, at], model(ids[row : row + 1, :n])[0])


@kinds
def test_a_row_of_nothing_but_padding_is_finite_and_leaves_the_others_alone(make_bert, ids, kind):
    model = make_bert(**kind)
    logits = model(ids, torch.tensor([[1], [0], [1]]).expand(3, 10))
    assert logits.isfinite().all()
    assert_close(logits[::2], model(ids[::2]))


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_text_read_backwards_is_the_same_only_to_alibi(make_bert, ids, positions):
    model = make_bert(positions=positions)
    same = torch.allclose(model(ids.flip(1)), model(ids).flip(1), atol=1e-4)  # it biases by |distance| alone
    assert same == (positions == "alibi")


@pytest.mark.parametrize("padded", [False, True])
def test_logits_equal_those_of_the_pre_norm_roberta_with_the_same_weights(make_bert, stir, renamed, ids, padded):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    config = RobertaPreLayerNormConfig(vocab_size=23, max_position_embeddings=12, layer_norm_eps=1e-5, **shape)
    theirs = stir(RobertaPreLayerNormForMaskedLM(config))
    trunk = theirs.roberta_prelayernorm
    trunk.embeddings.LayerNorm = nn.Identity()  # it has one norm more than ours
    nn.init.zeros_(trunk.embeddings.token_type_embeddings.weight)  # and segments
    weights = trunk.state_dict() | {f"lm_head.{key}": value for key, value in theirs.lm_head.state_dict().items()}
    del weights["embeddings.token_type_embeddings.weight"], weights["lm_head.bias"]
    joined = {"attention.qkv": [f"attention.self.{part}" for part in ("query", "key", "value")]}
    names = {"attention.output.dense": "attention.out", "attention.LayerNorm": "norm_attention"}
    names |= {"intermediate.LayerNorm": "norm_feed_forward", "intermediate.dense": "feed_forward.up"}
    names |= {"output.dense": "feed_forward.out", "encoder.layer": "blocks", "LayerNorm": "norm"}
    names |= {"embeddings.word_embeddings": "embedding", "embeddings.position_embeddings": "positions"}
    names |= {"lm_head.dense": "dense", "lm_head.layer_norm": "norm_head", "lm_head.decoder": "head"}
    ours = make_bert(positions="learned", bias=True, tie_embeddings=True)
    ours.load_state_dict(renamed(weights, names, joined))
    mask = (torch.arange(10) < torch.tensor([[10], [7], [4]])).long() if padded else torch.ones_like(ids)
    expected = theirs(ids, mask, position_ids=torch.arange(10).expand(3, 10)).logits
    assert_close(ours(ids, mask)[mask.bool()], expected[mask.bool()])


def test_parameters_are_counted_in_closed_form():
    C, V, L, S = 32, 100, 3, 16
    shape = TransformerConfig(vocab_size=V, context_length=S, width=C, num_layers=L, num_heads=4, positions="rotary")
    block = 4 * C * C + 2 * 4 * C * C + 2 * C  # attention, feed-forward, two norms
    plain = V * C + L * block + C + (C * C + C + V)  # the head: dense, norm and a bias
    assert BERT(shape).num_parameters() == plain
    assert BERT(shape.replace(tie_embeddings=False)).num_parameters() == plain + V * C
    assert BERT(shape.replace(positions="learned")).num_parameters() == plain + S * C
    biases = L * (3 * C + C + 4 * C + C + 2 * C) + C + (C + C)
    assert BERT(shape.replace(bias=True)).num_parameters() == plain + biases


def test_more_tokens_than_the_context_length_are_refused(make_bert):
    with pytest.raises(ValueError, match="13 tokens exceed the model's context length of 12"):
        make_bert()(torch.zeros(1, 13, dtype=torch.long))


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_classifiers_logits_are_those_of_the_mean_of_real_tokens(ids, side):
    torch.manual_seed(0)
    shape = {"num_layers": 2, "num_heads": 4, "width": 32, "vocab_size": 23, "context_length": 12}
    model = TextClassifier(ClassifierConfig(num_classes=5, **shape)).eval()
    lengths = (4, 7, 10)
    padded, mask = torch.full((3, 11), 22), torch.zeros(3, 11, dtype=torch.long)
    for row, n in enumerate(lengths):
        at = slice(11 - n, 11) if side == "left" else slice(0, n)
        padded[row, at], mask[row, at] = ids[row, :n], 1
    logits = model(padded, mask)
    assert logits.shape == (3, 5)
    for row, n in enumerate(lengths):
        alone = ids[row : row + 1, :n]
        assert_close(logits[row], model.head(model.hidden(alone)[0].mean(0)))
        assert_close(logits[row], model(alone)[0])
    assert model(padded, torch.zeros_like(mask)).isfinite().all()


def test_a_classifiers_head_is_not_its_embedding():
    with pytest.raises(ValidationError, match="tie_embeddings"):
        ClassifierConfig(tie_embeddings=True)
    model = TextClassifier(ClassifierConfig(num_layers=1, num_heads=1, width=8, vocab_size=9, context_length=4))
    assert model.head.weight.shape == (2, 8)
    assert sum(one.numel() for one in model.parameters() if one is model.embedding.weight) == 72
