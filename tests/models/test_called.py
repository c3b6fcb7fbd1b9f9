"""Models of other people's making, called by the keys of our batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from utils.models.adapter import adapt
from utils.models.called import Called
from utils.models.generate import SamplingConfig, generate


class WithTargets(nn.Module):
    """As nanoGPT's: without targets it gives the last position alone, and a loss besides."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(19, 8), nn.Linear(8, 19)

    def forward(self, idx, targets=None):
        logits = self.head(self.embedding(idx))
        return (logits, None) if targets is not None else (logits[:, [-1]], None)


class Letters:
    start_id = 0

    def encode(self, text):
        return [ord(letter) - 97 for letter in text]

    def decode(self, ids):
        return "".join(chr(97 + one) for one in ids)


@pytest.fixture
def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=19, n_positions=16, n_embd=16, n_layer=1, n_head=2)).eval()


def test_the_logits_are_the_models_own_with_masks_and_decoder_ids(gpt2):
    ids, mask = torch.randint(0, 19, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    mask[0, :3] = 0
    called = Called(adapt(gpt2))
    assert_close(called(ids, attention_mask=mask), gpt2(input_ids=ids, attention_mask=mask).logits)
    assert_close(called(input_ids=ids, attention_mask=None), gpt2(input_ids=ids).logits)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=19, **sizes)).eval()
    expected = t5(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :4]).logits
    assert_close(Called(adapt(t5))(ids, attention_mask=mask, decoder_input_ids=ids[:, :4]), expected)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertForSequenceClassification(BertConfig(vocab_size=19, num_labels=3, **shape)).eval()
    assert_close(Called(adapt(bert))(ids, attention_mask=mask), bert(input_ids=ids, attention_mask=mask).logits)


def test_a_model_that_wants_targets_gives_every_position():
    model = WithTargets().eval()
    ids = torch.randint(0, 19, (2, 5))
    called = Called(adapt(model, kind="causal_lm", config={"context_length": 8}))
    assert_close(called(ids), model(ids, ids)[0])
    assert called.num_parameters() == 19 * 8 + 19 * 8 + 19


def test_its_weights_train_and_come_back(gpt2):
    called = Called(adapt(gpt2))
    called(torch.randint(0, 19, (2, 5))).square().mean().backward()
    assert all(one.grad is not None for one in gpt2.parameters())
    assert [*called.state_dict()] == [f"model.{name}" for name in gpt2.state_dict()]


def test_text_is_continued_greedily_as_transformers_does(gpt2):
    prompt = torch.tensor([[3, 1, 4]])
    expected = gpt2.generate(
        prompt, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None, attention_mask=prompt >= 0
    )
    called = Called(adapt(gpt2))
    text = generate(called, Letters(), "dbe", SamplingConfig(max_new_tokens=8, temperature=0))
    assert Letters().encode(text) == expected[0, 3:].tolist()
