"""`PolicyConfig`: which language model writes the programs, and what of it is trained. `build_policy` makes it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from utils.core.config import Config
from utils.models.blocks import TransformerConfig
from utils.models.build import seeded
from utils.models.transformer import GPT
from utils.rl.backbone import recomputing
from utils.rl.policy import CodePolicy
from utils.rl.pretrained import load_hub, load_smollm2
from utils.rl.quantise import memory, quantise
from utils.rl.tiny import GridGPT
from utils.rl.vocabulary import PieceTokenizer

log = logging.getLogger(__name__)


class TinyConfig(TransformerConfig):
    """The shape of the tiny policy, about 1.9 million parameters."""

    context_length: int = Field(1024, ge=2)
    """tokens of a prompt and a program together"""
    num_layers: int = Field(6, ge=1)
    """blocks"""
    num_heads: int = Field(5, ge=1)
    """attention heads"""
    width: int = Field(160, ge=1)
    """size of the residual stream"""


class LoraConfig(Config):
    """Adapters of low rank beside frozen weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    rank: int = Field(16, ge=1)
    """rank of an adapter"""
    alpha: float = Field(32.0, gt=0)
    """an adapter's output counts alpha / rank times"""
    targets: tuple[str, ...] | None = None
    """ends of the names of the linear layers that get one, such as q_proj; None: all but the output head"""


class PolicyConfig(Config):
    """Which model writes the programs."""

    kind: Literal["tiny", "smollm2", "hub"] = "tiny"
    """tiny: our own, untrained; smollm2: SmolLM2-135M-Instruct from PyPI; hub: a pretrained model by its id"""
    tiny: TinyConfig = TinyConfig()
    """tiny only: its shape; the vocabulary is that of the primitives"""
    model: str = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    """hub only: id or folder of a causal language model of transformers'"""
    revision: str = ""
    """hub only: branch, tag or commit; empty: the default branch"""
    value: Literal["head", "network"] = "head"
    """what expects the score: a linear head on the model, or a copy of the model with a head"""
    freeze_layers: int = Field(0, ge=0)
    """the embeddings and this many of the first blocks stay as they are (a head tied to them, too); 0: none"""
    lora: LoraConfig | None = None
    """train adapters and leave the model as it is; None: train the model itself"""
    quantise: Literal["none", "8bit", "4bit"] = "none"
    """bits of the frozen weights, with lora only; needs bitsandbytes"""
    gradient_checkpointing: bool = False
    """keep no activations within blocks, compute them again for gradients: less memory, a third slower"""

    @model_validator(mode="after")
    def _consistent(self):
        if self.kind == "tiny" and (self.quantise != "none" or self.gradient_checkpointing):
            name = "quantise" if self.quantise != "none" else "gradient_checkpointing"
            raise ValueError(f"{name} is for smollm2 and hub; drop it, the tiny model is small")
        if self.kind == "tiny" and self.tiny.vocab_size is not None:
            raise ValueError(f"tiny.vocab_size {self.tiny.vocab_size} is what the primitives make it; drop it")
        if self.kind == "tiny" and self.freeze_layers > self.tiny.num_layers:
            raise ValueError(f"freeze_layers {self.freeze_layers} is more than the {self.tiny.num_layers} blocks")
        if self.kind != "hub" and self.revision:
            raise ValueError(f"revision is for hub; {self.kind} has none, drop it")
        if self.lora is None and self.quantise != "none":
            raise ValueError(f"weights in {self.quantise} cannot be trained; set lora, or quantise=none")
        if self.lora is not None and self.freeze_layers:
            raise ValueError("lora leaves every layer of the model as it is; drop freeze_layers or lora")
        return self


def build_policy(config: PolicyConfig, *, names: Iterable[str] = (), seed: int) -> CodePolicy:
    """The policy, on the CPU, its `facts` told. `names` are the primitives of the tiny model's vocabulary.

    `seed` decides what is newly initialised. Raises `SourceError` where a pretrained model cannot be had, ImportError
    where a package is missing, ValueError where settings do not suit the model.
    """
    with seeded(seed):
        model, tokenizer, facts = _load(config, tuple(names))
        if config.freeze_layers:
            freeze(model, config.freeze_layers)
        if config.lora is not None:
            model.requires_grad_(False)
            if config.quantise != "none":
                facts["quantised"] = quantise(model, config.quantise)
            adapt(model, config.lora)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            _still(model)
        policy = CodePolicy(model, tokenizer, value=config.value)
    if config.kind != "tiny":
        policy.register_state_dict_post_hook(_leave_out_frozen)
        policy.register_load_state_dict_post_hook(_miss_no_frozen)
    trained = sum(one.numel() for one in policy.parameters() if one.requires_grad)
    facts["PPO changes"] = f"{trained:,} parameters (with the value {config.value})"
    facts["memory"] = f"{memory(policy) / 1e6:,.1f} MB of weights"
    policy.facts = facts
    _tell("; ".join(f"{name}: {value}" for name, value in facts.items()))
    return policy


@functools.cache
def _tell(facts: str) -> None:
    """Once for each policy: a command builds the same one anew to judge it, and again as it began."""
    log.info(facts)


def _load(config: PolicyConfig, names: tuple[str, ...]) -> tuple[nn.Module, Any, dict[str, str]]:
    if config.kind == "tiny":
        if not names:
            raise ValueError("The tiny policy's vocabulary needs the names of the primitives; got none.")
        tokenizer = PieceTokenizer(names)
        model = GridGPT(config.tiny.replace(vocab_size=tokenizer.vocab_size))
        return model, tokenizer, {"model": f"GridGPT, {model.num_parameters():,} parameters from random weights"}
    loaded = load_smollm2() if config.kind == "smollm2" else load_hub(config.model, config.revision)
    model, tokenizer, told = loaded
    return model, tokenizer, {"model": told, "padding": tokenizer.told}


def freeze(model: nn.Module, layers: int) -> None:
    """Take the embeddings and the first `layers` blocks of a model out of training."""
    blocks = _blocks(model)
    if layers > len(blocks):
        raise ValueError(f"freeze_layers {layers} is more than the {len(blocks)} blocks of {type(model).__name__}.")
    embeddings = [one for one in model.modules() if isinstance(one, (nn.Embedding, nn.EmbeddingBag))]
    for module in (*embeddings, *blocks[:layers]):
        module.requires_grad_(False)


def _blocks(model: nn.Module) -> nn.ModuleList:
    if isinstance(model, GPT):
        return model.blocks
    count = model.config.get_text_config().num_hidden_layers
    lists = [one for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of {count} blocks; set freeze_layers=0.")
    return lists[0]


def adapt(model: nn.Module, config: LoraConfig) -> None:
    """Put adapters beside linear layers of `model`, in place; nothing else of it is trained."""
    try:
        import peft
    except ImportError:
        raise ImportError("lora needs peft, which is not installed: pip install peft, or drop lora.") from None
    head = model.head if isinstance(model, GPT) else model.get_output_embeddings()
    linear = {
        name: type(layer).__name__ == "Conv1D"  # GPT-2's, which stores its matrix the other way round
        for name, layer in model.named_modules()
        if layer is not head and (isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D")
    }
    ends = config.targets
    chosen = [name for name in linear if ends is None or any(f".{name}".endswith(f".{end}") for end in ends)]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise ValueError(f"lora.targets {', '.join(ends)} are no linear layers of the model; it has {known}.")
    options = {"lora_alpha": config.alpha, "fan_in_fan_out": linear[chosen[0]]}
    peft.inject_adapter_in_model(peft.LoraConfig(r=config.rank, target_modules=chosen, **options), model)


def _still(model: nn.Module) -> None:
    """No dropout in blocks that compute their activations again: they are in training where all else is not.

    Some drop by a module, which is never in training (`CodePolicy.train`), and some by a number of theirs.
    """
    for one in (model.config, model.config.get_text_config(), *recomputing(model)):
        for name, value in list(vars(one).items()):
            if "drop" in name and isinstance(value, float):
                setattr(one, name, 0.0)


def _trained(policy: nn.Module) -> set[str]:
    return {name for name, one in policy.named_parameters(remove_duplicate=False) if one.requires_grad}


def _leave_out_frozen(policy: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A checkpoint of a pretrained model holds what is trained; the rest comes from where the model does."""
    kept = {prefix + name for name in _trained(policy)}
    for key in [key for key in state if key.startswith(prefix) and key not in kept]:
        del state[key]


def _miss_no_frozen(policy: nn.Module, keys: Any) -> None:
    trained = _trained(policy)
    keys.missing_keys[:] = [key for key in keys.missing_keys if key in trained]
