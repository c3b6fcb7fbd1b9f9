"""T5: what each side sees, padding, and its logits against those of transformers with the same weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import T5Config as TheirConfig
from transformers import T5ForConditionalGeneration

from utils.models.t5 import T5, T5Config

kinds = pytest.mark.parametrize("kind", [{}, {"num_kv_heads": 2}, {"num_decoder_layers": 1}], ids=str)


@pytest.fixture
def source():
    return torch.randint(0, 23, (3, 10), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def target():
    return torch.randint(0, 23, (3, 8), generator=torch.Generator().manual_seed(1))


@kinds
def test_changing_a_target_token_changes_no_logits_before_it_and_its_own(make_t5, source, target, kind):
    model = make_t5(**kind)
    logits = model(source, target)
    for t in range(8):
        changed = target.clone()
        changed[:, t] = (changed[:, t] + 1) % 23
        after = model(source, changed)
        assert torch.equal(after[:, :t], logits[:, :t])
        assert ((after[:, t:] - logits[:, t:]).abs().amax((0, 2)) > 1e-3).all()


@kinds
def test_changing_a_source_token_changes_all_the_logits(make_t5, source, target, kind):
    model = make_t5(**kind)
    logits = model(source, target)
    for t in range(10):
        changed = source.clone()
        changed[:, t] = (changed[:, t] + 1) % 23
        assert ((model(changed, target) - logits).abs().amax((0, 2)) > 1e-3).all()


@kinds
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logits_of_real_tokens_whatever_its_id(make_t5, source, target, kind, side):
    model = make_t5(**kind)

    def padded(ids: torch.Tensor, lengths: tuple[int, ...], pad_id: int, size: int):
        place = [slice(size - n, size) if side == "left" else slice(0, n) for n in lengths]
        result, mask = torch.full((3, size), pad_id), torch.zeros(3, size, dtype=torch.long)
        for row, (n, at) in enumerate(zip(lengths, place)):
            result[row, at], mask[row, at] = ids[row, :n], 1
        return result, mask, place

    lengths = ((4, 7, 10), (8, 2, 5))
    for pad_id in (0, 22):
        input_ids, mask, _ = padded(source, lengths[0], pad_id, 11)
        decoder_input_ids, decoder_mask, place = padded(target, lengths[1], pad_id, 9)
        logits = model(input_ids, decoder_input_ids, mask, decoder_mask)
        assert logits.isfinite().all()
        for row, (n, m, at) in enumerate(zip(*lengths, place)):
            assert_close(logits[row, at], model(source[row : row + 1, :n], target[row : row + 1, :m])[0])


@pytest.mark.parametrize("bf16", [False, True])
def test_a_source_of_nothing_but_padding_is_finite_and_says_nothing(make_t5, source, target, bf16):
    model = make_t5(bias=True)
    mask = torch.tensor([[1], [0], [1]]).expand(3, 10)
    other = source.clone()
    other[1] = (other[1] + 5) % 23
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(source, target, mask)
        assert logits.isfinite().all()
        assert torch.equal(model(other, target, mask), logits)
        assert_close(logits[::2], model(source[::2], target[::2]))


@pytest.mark.parametrize(
    ("activation", "theirs"), [("swiglu", "gated-silu"), ("gelu", "gelu"), ("relu2", "relu2")], ids=str
)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_equal_those_of_transformers_with_the_same_weights(make_t5, stir, renamed, activation, theirs, padded):
    shape = {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 1}
    shape |= {"d_ff": 88 if activation == "swiglu" else 128, "feed_forward_proj": theirs}  # 88: 2/3 of 128, by 8s
    shape |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6}
    shape |= {"layer_norm_epsilon": torch.finfo(torch.float32).eps, "tie_word_embeddings": False}
    peer = stir(T5ForConditionalGeneration(TheirConfig(vocab_size=23, **shape)))
    state = {"embedding.weight": peer.shared.weight, "head.weight": peer.lm_head.weight}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        weights = {key: value for key, value in peer.state_dict().items() if key.startswith(stack)}
        del weights[f"{stack}.embed_tokens.weight"]
        for key in weights:
            if key.endswith("Attention.q.weight"):  # ours divides the scores by the root of the head size, 8
                weights[key] = weights[key] * math.sqrt(8)
        attention, cross, feed_forward = (
            "layer.0.SelfAttention",
            "layer.1.EncDecAttention",
            f"layer.{last}.DenseReluDense",
        )
        joined = {"attention.qkv": [f"{attention}.{part}" for part in "qkv"]}
        joined |= {"cross.kv": [f"{cross}.{part}" for part in "kv"]}
        joined |= (
            {"feed_forward.up": [f"{feed_forward}.wi_0", f"{feed_forward}.wi_1"]} if theirs == "gated-silu" else {}
        )
        names = {"layer.0.layer_norm": "norm_attention", "layer.1.layer_norm": "norm_cross"}
        names |= {f"layer.{last}.layer_norm": "norm_feed_forward", "final_layer_norm": "norm"}
        names |= {f"block.0.{attention}.relative_attention_bias": "relative", "block": "blocks"}
        names |= {f"{attention}.o": "attention.out", f"{cross}.o": "cross.out", f"{cross}.q": "cross.query"}
        names |= {f"{feed_forward}.wi": "feed_forward.up", f"{feed_forward}.wo": "feed_forward.out"}
        state |= renamed(weights, names, joined)
    ours = make_t5(activation=activation, num_decoder_layers=1, context_length=20)
    ours.load_state_dict(state)
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randint(0, 23, (3, length), generator=generator) for length in (20, 14))  # past distance 6
    masks = [torch.ones_like(source), torch.ones_like(target)]
    if padded:
        masks = [
            (torch.arange(20) < torch.tensor([[20], [7], [4]])).long(),
            (torch.arange(14) < torch.tensor([[3], [14], [9]])).long(),
        ]
    expected = peer(source, masks[0], decoder_input_ids=target, decoder_attention_mask=masks[1]).logits
    real = masks[1].bool()
    assert_close(ours(source, target, *masks)[real], expected[real], atol=1e-4, rtol=1e-4)
    if not padded:
        assert_close(ours(source, target), ours(source, target, *masks))


def test_decoding_from_the_memory_gives_the_logits_of_the_whole(make_t5, source, target):
    model = make_t5()
    mask = (torch.arange(10) < torch.tensor([[10], [7], [4]])).long()
    assert torch.equal(model.decode(target, model.encode(source, mask), mask), model(source, target, mask))


def test_projections_into_the_residual_stream_start_smaller_by_the_root_of_their_number():
    torch.manual_seed(0)
    model = T5(T5Config(vocab_size=64, context_length=64, width=64, num_layers=8, num_decoder_layers=3))
    # 0.02 / sqrt(2 * 8) and 0.02 / sqrt(3 * 3); of 4096 draws or more, a deviation scatters by 1.1%, of 128 by 6%
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == 1).all()
            continue
        expected = {"encoder": 0.005, "decoder": 0.02 / 3}[name.split(".")[0]] if ".out." in name else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.25 if "relative" in name else 0.06)


def test_parameters_are_counted_in_closed_form():
    C, V, L, D = 32, 100, 3, 2
    shape = T5Config(vocab_size=V, context_length=16, width=C, num_layers=L, num_decoder_layers=D, num_heads=4)
    encoder = 4 * C * C + 2 * 4 * C * C + 2 * C  # attention, feed-forward, two norms
    decoder = encoder + 4 * C * C + C  # and attention to the source with its norm
    plain = V * C + L * encoder + D * decoder + 2 * C + 2 * 32 * 4  # last norms, and 32 buckets for 4 heads
    assert T5(shape).num_parameters() == plain  # the tied head counts once
    assert T5(shape.replace(tie_embeddings=False)).num_parameters() == plain + V * C
    # One key/value head of four: three quarters fewer key and value weights.
    assert T5(shape.replace(num_kv_heads=1)).num_parameters() == plain - (L + 2 * D) * 2 * C * C * 3 // 4
    biases = L * (3 * C + C + 4 * C + C) + D * (3 * C + C + C + 2 * C + C + 4 * C + C)  # an RMSNorm has none
    assert T5(shape.replace(bias=True)).num_parameters() == plain + biases


@pytest.mark.parametrize("lengths", [(13, 5), (5, 13)])
def test_more_tokens_than_the_context_length_are_refused_on_either_side(make_t5, lengths):
    with pytest.raises(ValueError, match="13 tokens exceed the model's context length of 12"):
        make_t5()(*(torch.zeros(1, length, dtype=torch.long) for length in lengths))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": "rotary"}, "positions\n.*'relative'.*input_value='rotary'"),
        ({"norm": "layernorm"}, "norm\n.*'rmsnorm'.*input_value='layernorm'"),
        ({"relative_buckets": 7}, "multiple of 2"),
        ({"relative_buckets": 64, "relative_distance": 32}, "relative_distance 32 is not beyond the 32 distances"),
    ],
)
def test_fields_that_it_cannot_honour_are_refused_when_the_config_is_made(fields, message):
    with pytest.raises(ValueError, match=message):
        T5Config(**fields)
