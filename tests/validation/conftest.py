"""Small models that nobody doubts: ours, transformers', x-transformers', vit-pytorch's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

Build = Callable[[], nn.Module]
V, T, C = 211, 64, 64


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Of every test here."""


def our(name: str) -> Build:
    from utils.models.bert import BERT
    from utils.models.blocks import TransformerConfig
    from utils.models.t5 import T5, T5Config
    from utils.models.transformer import GPT
    from utils.models.vit import ViT, ViTConfig

    shape = {"num_layers": 3, "num_heads": 4, "width": C}
    text = TransformerConfig(vocab_size=V, context_length=T, **shape)
    return {
        "GPT": lambda: GPT(text),
        "GPT with dropout, learned positions, RMSNorm, SwiGLU": lambda: GPT(
            text.replace(dropout=0.1, positions="learned", norm="rmsnorm", activation="swiglu", num_kv_heads=2)
        ),
        "GPT with ALiBi": lambda: GPT(text.replace(positions="alibi", tie_embeddings=False)),
        "BERT": lambda: BERT(text),
        "T5": lambda: T5(T5Config(vocab_size=V, context_length=T, **shape)),
        "ViT": lambda: ViT(ViTConfig(image_size=32, patch_size=8, num_classes=5, **shape)),
    }[name]


def hugging_face(name: str) -> Build:
    import transformers as hf

    common = {
        "vocab_size": V, "hidden_size": C, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
        "max_position_embeddings": T,
    }  # fmt: skip
    pieces = {"vocab_size": V, "d_model": C}
    halves = {f"{side}_{what}": number for side in ("encoder", "decoder")
              for what, number in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 128))}  # fmt: skip
    return {
        "GPT-2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=V, n_embd=C, n_layer=3, n_head=4, n_positions=T, bos_token_id=0, eos_token_id=0)
        ),
        "Llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**common, num_key_value_heads=2)),
        "BERT": lambda: hf.BertForMaskedLM(hf.BertConfig(**common)),
        "RoBERTa": lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**common)),
        "DistilBERT": lambda: hf.DistilBertForMaskedLM(
            hf.DistilBertConfig(vocab_size=V, dim=C, n_layers=3, n_heads=4, hidden_dim=128, max_position_embeddings=T)
        ),
        "T5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(**pieces, d_kv=16, d_ff=128, num_layers=3, num_heads=4, decoder_start_token_id=0)
        ),
        "BART": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**pieces, **halves, max_position_embeddings=T)),
        "ViT": lambda: hf.ViTForImageClassification(
            hf.ViTConfig(
                hidden_size=C, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=32,
                patch_size=8, num_labels=5,
            )
        ),
        "BERT for sequence classification": lambda: hf.BertForSequenceClassification(
            hf.BertConfig(**common, num_labels=3)
        ),
        "12-layer BERT": lambda: hf.BertForMaskedLM(hf.BertConfig(**{**common, "num_hidden_layers": 12})),
        "BERT without a head": lambda: hf.BertModel(hf.BertConfig(**common)),
    }[name]  # fmt: skip


def from_packages(name: str) -> Build:
    if name == "vit-pytorch ViT":
        found = importlib.util.find_spec("vit_pytorch")
        if found is None:
            pytest.skip("vit-pytorch is not installed")
        # By its file: the package's __init__ imports torchvision, for other models than this one.
        place = Path(found.submodule_search_locations[0]) / "vit.py"
        spec = importlib.util.spec_from_file_location("vit_pytorch_vit", place)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda: module.ViT(
            image_size=32, patch_size=8, num_classes=5, dim=C, depth=3, heads=4, mlp_dim=128, dropout=0.1
        )
    xt = pytest.importorskip("x_transformers")
    kinds = {"x-transformers decoder": (xt.Decoder, {}), "x-transformers encoder": (xt.Encoder, {})}
    kinds["x-transformers rotary decoder"] = (xt.Decoder, {"rotary_pos_emb": True, "ff_glu": True})
    side, options = kinds[name]
    bare = {"use_abs_pos_emb": False} if options else {}
    return lambda: xt.TransformerWrapper(
        num_tokens=V, max_seq_len=T, attn_layers=side(dim=C, depth=3, heads=4, **options), **bare
    )


HEALTHY: dict[str, tuple[Callable[[str], Build], dict[str, Any]]] = {
    **{f"our {name}": (our, {}) for name in (
        "GPT", "GPT with dropout, learned positions, RMSNorm, SwiGLU", "GPT with ALiBi", "BERT", "T5", "ViT")},
    **{f"transformers' {name}": (hugging_face, {}) for name in (
        "GPT-2", "Llama", "BERT", "RoBERTa", "DistilBERT", "T5", "BART", "ViT", "BERT for sequence classification",
        "12-layer BERT")},
    "transformers' BERT without a head": (hugging_face, {"kind": "masked_lm"}),
    "package's x-transformers decoder": (from_packages, {}),
    "package's x-transformers rotary decoder": (from_packages, {}),
    "package's x-transformers encoder": (from_packages, {"kind": "masked_lm"}),
    "package's vit-pytorch ViT": (from_packages, {"config": {"image_size": 32, "channels": 3}}),
}  # fmt: skip
"""name -> who builds it, and what `adapt` must be told beyond what the model says"""


@pytest.fixture(params=HEALTHY)
def healthy(request) -> tuple[Build, dict[str, Any]]:
    """(build, keywords of `adapt`) of each sound model."""
    make, keywords = HEALTHY[request.param]
    return make(request.param.partition(" ")[2]), keywords
