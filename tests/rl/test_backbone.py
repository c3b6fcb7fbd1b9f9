"""Backbones: reading on from a cache is reading the whole, in every way that the policy reads."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.backbone import GPTBackbone, HFBackbone, SharedCache, backbone_of

pytestmark = pytest.mark.usefixtures("one_thread")

V, SHAPE = 31, {"num_layers": 2, "num_heads": 4, "width": 32}


def gpt(**fields):
    return GPT(TransformerConfig(vocab_size=V, context_length=40, **SHAPE, **fields))


def small(config, model, **fields):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return model(config(**sizes, num_key_value_heads=2, vocab_size=V, max_position_embeddings=40, **fields))


MODELS = {
    "rotary": lambda: gpt(num_kv_heads=2),
    "learned": lambda: gpt(positions="learned"),
    "sinusoidal": lambda: gpt(positions="sinusoidal"),
    "alibi": lambda: gpt(positions="alibi"),
    "llama": lambda: small(LlamaConfig, LlamaForCausalLM),
    "window": lambda: small(MistralConfig, MistralForCausalLM, sliding_window=5),  # keys further back are not seen
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=V, n_positions=40)),
}


@pytest.fixture(params=MODELS)
def net(request):
    torch.manual_seed(0)
    model = MODELS[request.param]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return backbone_of(model.eval())


def whole(net, row):
    """Logits and hidden states (T, ...) of one row, by the model's own forward."""
    if isinstance(net.model, GPT):
        return net.model(row[None])[0], net.model.hidden(row[None])[0]
    out = net.model(row[None], output_hidden_states=True, use_cache=False)
    return out.logits[0], out.hidden_states[-1][0]


@pytest.fixture
def texts():
    """P = 3 prompts of 9, 6 and 4 tokens in 9 places, and the 5 tokens of each of their 2 samples."""
    generator = torch.Generator().manual_seed(1)
    ids, mask = torch.randint(V, (3, 9), generator=generator), torch.ones(3, 9, dtype=torch.long)
    mask[1, :3], mask[2, :5] = 0, 0
    return ids, mask, torch.randint(V, (6, 5), generator=generator)


def row_of(texts, sample: int, tokens: int):
    """The sample's whole text up to `tokens` of its own."""
    ids, mask, more = texts
    return torch.cat((ids[sample // 2][mask[sample // 2].bool()], more[sample, :tokens]))


def seen(texts, tokens: int):
    return torch.cat((texts[1].repeat_interleave(2, 0), torch.ones(6, tokens, dtype=torch.long)), dim=1)


@torch.no_grad()
def test_token_by_token_from_a_shared_prompt_is_reading_each_sample_whole(net, texts):
    ids, mask, more = texts
    cache = net.sampling_cache(9, 5, 2)
    logits, hidden = net.read(ids, mask, cache, 1)
    for prompt in range(3):
        expected = whole(net, row_of(texts, 2 * prompt, 0))
        assert_close(logits[prompt, -1], expected[0][-1], atol=1e-5, rtol=0)
        assert_close(hidden[prompt, -1], expected[1][-1], atol=1e-5, rtol=0)
    cache = net.repeat(cache, 2)
    for place in range(5):
        logits, hidden = net.read(more[:, place : place + 1], seen(texts, place + 1), cache, 1)
        assert logits.shape == (6, 1, V)
        for sample in range(6):
            expected = whole(net, row_of(texts, sample, place + 1))
            assert_close(logits[sample, 0], expected[0][-1], atol=1e-5, rtol=0)
            assert_close(hidden[sample, 0], expected[1][-1], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kept", [[0, 1, 4, 5], [2, 3]])
def test_selected_rows_go_on_as_they_were(net, texts, kept):
    ids, mask, more = texts
    cache, rows = net.sampling_cache(9, 5, 2), torch.tensor(kept)
    net.read(ids, mask, cache, 1)
    cache = net.repeat(cache, 2)
    for place in range(5):
        if place == 2:
            cache = net.select(cache, rows)
        now = slice(None) if place < 2 else rows
        logits, _ = net.read(more[now, place : place + 1], seen(texts, place + 1)[now], cache, 1)
    for at, sample in enumerate(kept):
        assert_close(logits[at, 0], whole(net, row_of(texts, sample, 5))[0][-1], atol=1e-5, rtol=0)


def test_all_at_once_from_a_repeated_prompt_is_reading_each_sample_whole_with_gradients(net, texts):
    ids, mask, more = texts
    cache = net.new_cache()
    net.read(ids, mask, cache, 1)
    logits, hidden = net.read(more, seen(texts, 5), net.repeat(cache, 2), 5)
    expected = [whole(net, row_of(texts, sample, 5)) for sample in range(6)]
    assert_close(logits, torch.stack([one[0][-5:] for one in expected]), atol=1e-5, rtol=0)
    assert_close(hidden, torch.stack([one[1][-5:] for one in expected]), atol=1e-5, rtol=0)
    logits.square().mean().backward()
    shared = {name: one.grad for name, one in net.named_parameters()}
    net.zero_grad()
    torch.stack([one[0][-5:] for one in expected]).square().mean().backward()
    assert max(one.abs().max() for one in shared.values()) > 1e-3
    for name, one in net.named_parameters():
        assert_close(shared[name], one.grad, atol=1e-5, rtol=0)


def test_without_a_cache_the_last_tokens_are_those_of_the_whole(net, texts):
    ids, mask, _ = texts
    logits, hidden = net.read(ids, mask, None, 3)
    assert logits.shape == (3, 3, V)
    for prompt in range(3):
        expected = whole(net, row_of(texts, 2 * prompt, 0))
        assert_close(logits[prompt], expected[0][-3:], atol=1e-5, rtol=0)
        assert_close(hidden[prompt], expected[1][-3:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_prompt_is_stored_once_for_all_its_samples():
    net = GPTBackbone(gpt().eval())
    cache = net.sampling_cache(9, 5, 8)
    net.read(torch.ones(3, 9, dtype=torch.long), torch.ones(3, 9, dtype=torch.long), cache, 1)
    assert isinstance(cache, SharedCache)
    assert net.repeat(cache, 8) is cache
    assert cache.layers[0][0].shape == (3, 4, 9 + 8 * 5, 8)  # (P, heads, capacity, head size), not (8 P, ...)


def test_activations_computed_again_need_the_whole_text_and_give_the_same_gradients(texts):
    ids, mask, _ = texts
    net = HFBackbone(MODELS["llama"]())
    net.read(ids, mask, None, 2)[0].square().mean().backward()
    expected = {name: one.grad.clone() for name, one in net.named_parameters()}
    net.zero_grad()
    assert not net.train().whole
    net.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert net.whole
    net.read(ids, mask, None, 2)[0].square().mean().backward()
    for name, one in net.named_parameters():
        assert_close(one.grad, expected[name])
    assert not net.eval().whole  # nothing is computed again, and the cache works


class Plain(LlamaForCausalLM):
    """A model that gives the logits of every token, and makes up its positions itself, as some do."""

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None):
        options = {"past_key_values": past_key_values, "use_cache": use_cache}
        return super().forward(input_ids, attention_mask=attention_mask, **options)


def test_a_model_that_cannot_be_asked_for_the_last_logits_gives_them_all_the_same():
    torch.manual_seed(0)
    net, ids = HFBackbone(small(LlamaConfig, Plain).eval()), torch.randint(V, (2, 8))
    logits, hidden = net.read(ids, torch.ones_like(ids), None, 3)
    for row in range(2):
        expected = LlamaForCausalLM.forward(net.model, ids[row][None], output_hidden_states=True)
        assert_close(logits[row], expected.logits[0, -3:], atol=1e-5, rtol=0)
        assert_close(hidden[row], expected.hidden_states[-1][0, -3:], atol=1e-5, rtol=0)


def test_the_backbone_is_that_of_the_model():
    assert isinstance(backbone_of(gpt()), GPTBackbone)
    net = backbone_of(MODELS["gpt2"]())
    assert isinstance(net, HFBackbone)
    assert (net.width, net.context_length) == (32, 40)
