from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.validation.observer import observe, weights_of


def seen_in(adapter, batch):
    found = {}
    observe(adapter, batch, lambda name, weights, visible: found.update({name: (weights, visible)}))
    return found


def gpt(**fields):
    torch.manual_seed(0)
    shape = {"vocab_size": 23, "context_length": 16, "num_layers": 2, "num_heads": 4, "width": 32}
    model = GPT(TransformerConfig(**shape | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return adapt(model)


@pytest.mark.parametrize("case", ["plain", "causal", "boolean mask", "float mask", "scale", "grouped"])
def test_the_weights_are_those_that_sdpa_gives_to_an_identity_of_values(case):
    torch.manual_seed(0)
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2 if case == "grouped" else 4, 5, 8)
    keywords = {
        "plain": {},
        "causal": {"is_causal": True},
        "boolean mask": {"attn_mask": torch.rand(2, 1, 5, 5) > 0.3},
        "float mask": {"attn_mask": torch.randn(4, 5, 5)},
        "scale": {"scale": 1.0},
        "grouped": {"enable_gqa": True},
    }[case]
    v = torch.eye(5).expand(*k.shape[:-1], 5)  # weights @ I = weights
    torch.testing.assert_close(weights_of(q, k, v, **keywords)[0], F.scaled_dot_product_attention(q, k, v, **keywords))


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_what_is_seen_of_transformers_with_sdpa_is_what_its_eager_attention_puts_out(family):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=2, n_positions=16)
        make, fields = transformers.GPT2LMHeadModel, ["attentions"]
    elif family == "bert":
        config = transformers.BertConfig(
            vocab_size=31, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
        )
        make, fields = transformers.BertForMaskedLM, ["attentions"]
    else:
        config = transformers.T5Config(
            vocab_size=31, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
        )
        make, fields = transformers.T5ForConditionalGeneration, ["encoder_attentions", "decoder_attentions"]
        fields.append("cross_attentions")
    model = make._from_config(config, attn_implementation="sdpa").eval()
    eager = make._from_config(config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    adapter = adapt(model)
    batch = adapter.batch(2, 7, seed=0)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with torch.no_grad():
        output = eager(**inputs, output_attentions=True)
    found = seen_in(adapter, batch)
    expected = [weights for field in fields[:2] for weights in output[field]]
    own = [weights for name, (weights, _) in found.items() if "EncDec" not in name]
    cross = [weights for name, (weights, _) in found.items() if "EncDec" in name]
    if family == "t5":
        expected += output.cross_attentions
    assert len(own + cross) == len(expected)
    torch.testing.assert_close(own + cross, expected)


def test_the_written_out_softmax_of_our_blocks_is_seen_as_sdpa_is():
    adapter = gpt()
    batch = adapter.batch(2, 6, seed=0)
    sdpa = seen_in(adapter, batch)
    adapter.model.bfloat16()  # the blocks write attention out in bf16 on a CPU
    written = seen_in(adapter, batch)
    assert list(sdpa) == list(written) == ["blocks.0.attention", "blocks.1.attention"]
    for name in sdpa:
        torch.testing.assert_close(written[name][0], sdpa[name][0], atol=0.1, rtol=0)
        assert torch.equal(written[name][1].expand(2, 4, 6, 6), sdpa[name][1].expand(2, 4, 6, 6))


class Encoder(nn.Module):
    """torch's own encoder, whose eval mode is one fused kernel."""

    kind, vocab_size, context_length = "classifier", 23, 16

    def __init__(self, **mask):
        super().__init__()
        self.embedding, self.mask = nn.Embedding(23, 16), mask
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids):
        mask = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1]) if self.mask else None
        return self.head(self.encoder(self.embedding(input_ids), mask=mask, is_causal=bool(self.mask)).mean(1))


@pytest.mark.parametrize("causal", [False, True])
def test_the_fast_path_of_torchs_encoder_is_seen_and_gives_what_its_attention_returns_on_request(causal):
    torch.manual_seed(0)
    model = Encoder(**{"causal": True} if causal else {}).eval()
    adapter = adapt(model)
    batch = adapter.batch(2, 6, seed=0)
    found = seen_in(adapter, batch)
    x = model.embedding(batch["input_ids"])
    mask = nn.Transformer.generate_square_subsequent_mask(6) if causal else None
    _, expected = model.encoder.layers[0].self_attn(x, x, x, attn_mask=mask, average_attn_weights=False)
    assert list(found) == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]
    weights, visible = found["encoder.layers.0.self_attn"]
    torch.testing.assert_close(weights, expected.detach())
    assert torch.equal(visible[0, 0], torch.ones(6, 6).tril().bool() if causal else torch.ones(6, 6).bool())


@pytest.mark.parametrize(("wanted", "average"), [(True, True), (True, False), (False, True)])
def test_observing_multi_head_attention_leaves_what_it_returns(wanted, average):
    class Model(nn.Module):
        kind, vocab_size, context_length = "causal_lm", 23, 16

        def __init__(self):
            super().__init__()
            self.embedding, self.attention = nn.Embedding(23, 16), nn.MultiheadAttention(16, 2)
            self.returned = []

        def forward(self, input_ids):
            x = self.embedding(input_ids).transpose(0, 1)
            hidden = torch.arange(5).expand(2, 5) >= 4
            self.returned.append(
                self.attention(x, x, x, hidden, need_weights=wanted, average_attn_weights=average)
                if input_ids.shape == (2, 5)
                else (x, None)
            )
            return self.returned[-1][0].transpose(0, 1)

    torch.manual_seed(0)
    adapter = adapt(Model().eval())
    batch = adapter.batch(2, 5, seed=0)
    adapter.model.returned.clear()
    with torch.no_grad():
        adapter(batch)
    found = seen_in(adapter, batch)
    plain, observed = adapter.model.returned
    torch.testing.assert_close(observed[0], plain[0])
    assert (observed[1] is None) == (plain[1] is None)
    if plain[1] is not None:
        torch.testing.assert_close(observed[1], plain[1])
    assert not found["attention"][1][..., 4].any()  # the padding key
