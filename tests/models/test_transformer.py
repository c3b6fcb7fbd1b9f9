"""GPT: causality, padding and cache, and its logits against other libraries' models of the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT

KINDS = [
    pytest.param({"positions": positions, "num_kv_heads": kv_heads}, id=f"{positions}-{kv_heads}")
    for positions in ("learned", "sinusoidal", "rotary", "alibi")
    for kv_heads in (4, 2)
]


@pytest.fixture
def ids():
    return torch.randint(0, 23, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
def test_changing_a_token_changes_no_logits_before_it_and_its_own(make_gpt, ids, kind):
    model = make_gpt(**kind)
    logits = model(ids)
    for t in range(10):
        changed = ids.clone()
        changed[:, t] = (changed[:, t] + 1) % 23
        after = model(changed)
        assert torch.equal(after[:, :t], logits[:, :t])
        assert ((after[:, t:] - logits[:, t:]).abs().amax((0, 2)) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logits_of_real_tokens_whatever_its_id(make_gpt, ids, kind, side):
    model = make_gpt(**kind)
    lengths = (4, 7, 10)
    for pad_id in (0, 22, 5):
        padded, mask = torch.full((3, 11), pad_id), torch.zeros(3, 11, dtype=torch.long)
        place = [slice(11 - n, 11) if side == "left" else slice(0, n) for n in lengths]
        for row, (n, at) in enumerate(zip(lengths, place)):
            padded[row, at], mask[row, at] = ids[row, :n], 1
        logits = model(padded, mask)
        assert logits.isfinite().all()
        for row, (n, at) in enumerate(zip(lengths, place)):
            assert_close(logits[row, at], model(ids[row : row + 1, :n])[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_pieces_read_through_a_cache_give_the_logits_of_the_whole(make_gpt, ids, kind, padded):
    model = make_gpt(**kind)
    mask = (torch.arange(10) >= torch.tensor([[0], [2], [5]])).long() if padded else None
    with torch.no_grad():
        cache, pieces = model.new_cache(), []
        for start, end in ((0, 6), (6, 7), (7, 10)):
            pieces.append(model(ids[:, start:end], None if mask is None else mask[:, :end], cache))
        assert cache.length == 10
        assert_close(torch.cat(pieces, dim=1), model(ids, mask))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_bf16_logits_are_those_of_float32_to_a_few_percent(make_gpt, ids, kind, padded):
    model = make_gpt(**kind)
    mask = (torch.arange(10) >= torch.tensor([[0], [2], [5]])).long() if padded else None
    real = torch.ones(3, 10, dtype=torch.bool) if mask is None else mask.bool()
    exact = model(ids, mask)[real]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(ids, mask)[real]
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_model_knows_nothing(kind):
    torch.manual_seed(0)
    model = GPT(TransformerConfig(vocab_size=500, context_length=32, width=64, num_layers=2, **kind))
    ids = torch.randint(0, 500, (8, 33))
    loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    # Logits of variance 64 * 0.02^2 = 0.026 add half of it to ln V, and 256 targets scatter by 0.16 / 16 = 0.01.
    assert loss.item() == pytest.approx(math.log(500) + 0.013, abs=0.05)


def test_projections_into_the_residual_stream_start_smaller_by_the_root_of_their_number():
    torch.manual_seed(0)
    model = GPT(
        TransformerConfig(vocab_size=64, context_length=64, width=64, num_layers=8, positions="learned", bias=True)
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.dim() == 1:
            assert (parameter == 1).all()  # a norm's
        else:  # 0.02 / sqrt(2 * 8 layers) = 0.005; of 4096 draws or more, a deviation scatters by 1.1%
            assert parameter.std().item() == pytest.approx(0.005 if "out." in name else 0.02, rel=0.06)


def test_parameters_are_counted_in_closed_form():
    C, V, L, S = 32, 100, 3, 16
    shape = TransformerConfig(vocab_size=V, context_length=S, width=C, num_layers=L, num_heads=4, positions="rotary")
    block = 4 * C * C + 2 * 4 * C * C + 2 * C  # attention, feed-forward, two norms
    plain = V * C + L * block + C
    assert GPT(shape).num_parameters() == plain  # the tied head counts once
    assert GPT(shape.replace(tie_embeddings=False)).num_parameters() == plain + V * C
    assert GPT(shape.replace(positions="learned")).num_parameters() == plain + S * C
    # One key/value head of four: three quarters fewer key and value weights.
    assert GPT(shape.replace(num_kv_heads=1)).num_parameters() == plain - L * 2 * C * C * 3 // 4
    biases = L * (3 * C + C + 4 * C + C + 2 * C) + C
    assert GPT(shape.replace(bias=True)).num_parameters() == plain + biases


def gpt2(stir):
    shape = {"n_positions": 12, "n_embd": 32, "n_layer": 2, "n_head": 4, "activation_function": "gelu"}
    theirs = stir(GPT2LMHeadModel(GPT2Config(vocab_size=23, **shape, bos_token_id=0, eos_token_id=0)))
    weights = theirs.transformer.state_dict()
    weights |= {key: value.T for key, value in weights.items() if ".c_" in key and value.dim() == 2}
    names = {"wte": "embedding", "wpe": "positions", "h": "blocks", "ln_f": "norm"}
    names |= {"ln_1": "norm_attention", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out"}
    names |= {"ln_2": "norm_feed_forward", "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.out"}
    return theirs, {"positions": "learned", "bias": True, "tie_embeddings": True}, weights, names, {}


def mpt(stir):
    theirs = stir(MptForCausalLM(MptConfig(vocab_size=23, d_model=32, n_layers=2, n_heads=4, max_seq_len=12)))
    names = {"wte": "embedding", "norm_f": "norm"}
    names |= {"norm_1": "norm_attention", "attn.Wqkv": "attention.qkv", "attn.out_proj": "attention.out"}
    names |= {"norm_2": "norm_feed_forward", "ffn.up_proj": "feed_forward.up", "ffn.down_proj": "feed_forward.out"}
    return theirs, {"positions": "alibi", "tie_embeddings": True}, theirs.transformer.state_dict(), names, {}


def llama(stir):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 88, "rms_norm_eps": torch.finfo(torch.float32).eps}  # 88: 2/3 of 128, by 8s
    theirs = stir(LlamaForCausalLM(LlamaConfig(vocab_size=23, **shape)))
    weights = theirs.model.state_dict() | {"head.weight": theirs.lm_head.weight}
    joined = {"attention.qkv": [f"self_attn.{part}_proj" for part in "qkv"]}
    joined |= {"feed_forward.up": ["mlp.gate_proj", "mlp.up_proj"]}
    names = {"embed_tokens": "embedding", "layers": "blocks", "self_attn.o_proj": "attention.out"}
    names |= {"input_layernorm": "norm_attention", "post_attention_layernorm": "norm_feed_forward"}
    names |= {"mlp.down_proj": "feed_forward.out"}
    fields = {"positions": "rotary", "norm": "rmsnorm", "activation": "swiglu", "num_kv_heads": 2}
    return theirs, fields, weights, names, joined


@pytest.mark.parametrize("peer", [gpt2, llama, mpt])
def test_logits_equal_those_of_the_published_model_with_the_same_weights(make_gpt, stir, renamed, ids, peer):
    theirs, fields, *weights = peer(stir)
    ours = make_gpt(**fields)
    tied = {"head.weight": ours.head.weight} if ours.config.tie_embeddings else {}
    ours.load_state_dict(renamed(*weights) | tied)
    assert_close(ours(ids), theirs(ids).logits)


@pytest.mark.parametrize("cached", [0, 8])
def test_more_tokens_than_the_context_length_are_refused(make_gpt, cached):
    model = make_gpt()
    cache = model.new_cache()
    if cached:
        model(torch.zeros(1, cached, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="13 tokens exceed the model's context length of 12"):
        model(torch.zeros(1, 13 - cached, dtype=torch.long), cache=cache)


@pytest.mark.parametrize("missing", ["vocab_size", "context_length"])
def test_a_shape_without_a_vocabulary_or_a_context_is_refused(missing):
    fields = {"vocab_size": 23, "context_length": 12}
    with pytest.raises(ValueError, match=r"needs model\.vocab_size and model\.context_length"):
        GPT(TransformerConfig(**{**fields, missing: None}))
