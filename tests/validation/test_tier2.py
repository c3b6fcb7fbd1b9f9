from __future__ import annotations

import hashlib
import random

import numpy as np
import pytest
import torch
from torch import nn

from utils.models.adapter import adapt
from utils.models.bert import BERT
from utils.models.blocks import TransformerConfig
from utils.models.t5 import T5, T5Config
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.steady import EFFORTS
from utils.validation.tier2 import TIER2

SMOKE = EFFORTS["smoke"]
TEXT = {"vocab_size": 101, "context_length": 32, "num_layers": 2, "width": 32}
HF = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 32,
}  # fmt: skip


class Encoder(nn.Module):
    kind, vocab_size, context_length = "classifier", 101, 32

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(101, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 2, 64, batch_first=True), 2)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids):
        return self.head(self.encoder(self.embedding(input_ids)).mean(1))


def transformers_gpt2():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 101, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def transformers_bert():
    transformers = pytest.importorskip("transformers")
    return transformers.BertForMaskedLM(transformers.BertConfig(**HF))


def transformers_t5():
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 101, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


def transformers_vit():
    transformers = pytest.importorskip("transformers")
    sizes = {key: HF[key] for key in list(HF)[1:5]}
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=5)
    )


def x_transformers_decoder():
    x_transformers = pytest.importorskip("x_transformers")
    layers = x_transformers.Decoder(dim=32, depth=2, heads=2)
    return x_transformers.TransformerWrapper(num_tokens=101, max_seq_len=32, attn_layers=layers)


MODELS = {
    "gpt": lambda: GPT(TransformerConfig(**TEXT)),
    "bert": lambda: BERT(TransformerConfig(**TEXT)),
    "t5": lambda: T5(T5Config(**TEXT)),
    "vit": lambda: ViT(ViTConfig(num_layers=2, width=32, image_size=16)),
    "nn.TransformerEncoder": Encoder,
    "transformers gpt2": transformers_gpt2,
    "transformers bert": transformers_bert,
    "transformers t5": transformers_t5,
    "transformers vit": transformers_vit,
    "x-transformers": x_transformers_decoder,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=list(MODELS))
def test_a_healthy_model_gets_no_warning(make):
    torch.manual_seed(0)
    adapter = adapt(make())
    checks = [check(adapter, SMOKE) for check in TIER2]
    assert not [str(check) for check in checks if check.status not in ("pass", "skip")]
    assert not any(check.critical for check in checks)
    for check in checks:
        assert check.status == "skip" or (check.table is not None and check.figure is not None)
    skipped = {check.name for check in checks if check.status == "skip"}
    assert skipped == (set() if adapter.text else {"embedding spectrum", "length extrapolation"})


def state_of(model):
    """Everything that a check may not change."""
    digest = hashlib.sha256()
    for name, value in model.state_dict(keep_vars=True).items():
        digest.update(name.encode() + value.detach().numpy().tobytes())
        digest.update(b"none" if value.grad is None else value.grad.numpy().tobytes())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "values and gradients": digest.hexdigest(),
        "modes": [module.training for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(getattr(module, kind)) for module in model.modules() for kind in hooks],
        "identity": [id(value) for value in model.state_dict(keep_vars=True).values()],
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "grad mode": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("check", TIER2, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["gpt", "t5", "vit", "nn.TransformerEncoder", "transformers gpt2"])
def test_a_check_leaves_weights_gradients_modes_hooks_and_generators_as_found(check, name):
    torch.manual_seed(0)
    model = MODELS[name]()
    adapter = adapt(model)
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn_like(parameter) if index % 3 else None
        parameter.requires_grad_(index % 4 != 0)
    for index, module in enumerate(model.modules()):
        module.training = bool(index % 2)
    before = state_of(model)
    check(adapter, SMOKE)
    after = state_of(model)
    assert [key for key in before if before[key] != after[key]] == []


@pytest.mark.parametrize("check", TIER2, ids=lambda check: check.__name__)
def test_the_same_seed_gives_the_same_result(check):
    torch.manual_seed(0)
    adapter = adapt(MODELS["gpt"]())
    first, second = check(adapter, SMOKE, seed=3), check(adapter, SMOKE, seed=3)
    assert first.summary == second.summary
    assert first.table.equals(second.table)
