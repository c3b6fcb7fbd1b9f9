"""The policy against the model itself: each response read whole, alone, without cache or padding, by its own library.

The oracle knows nothing of batches: it bans, cuts (by transformers' warpers) and normalises the logits of one row.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Categorical
from torch.testing import assert_close
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.rl.policy import CodePolicy
from utils.rl.sampling import SampleConfig, pad_left, unpacked
from utils.rl.tiny import GridGPT
from utils.rl.vocabulary import PieceTokenizer

PIECES = PieceTokenizer(["crop", "flip_rows", "recolour"])
V = PIECES.vocab_size
WAYS = [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"top_k": 5}, {"temperature": 1.3, "top_k": 12, "top_p": 0.9}]
LENGTHS = (3, 17, 9, 30)


pytestmark = pytest.mark.usefixtures("one_thread")


def grid_gpt(**fields):
    shape = {"num_layers": 2, "num_heads": 4, "width": 32, "context_length": 80, **fields}
    return GridGPT(TransformerConfig(vocab_size=V, **shape))


def learned_gpt():
    return GPT(TransformerConfig(vocab_size=V, num_layers=2, width=32, context_length=80, positions="learned"))


def llama():
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    # More logits than ids, as of models whose embedding is padded to a round size.
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, vocab_size=V + 6, max_position_embeddings=80))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=V, n_positions=80))


MODELS = {"grids": grid_gpt, "learned": learned_gpt, "llama": llama, "gpt2": gpt2}


def make(name: str, *, value="head", allowed: int | None = None, **fields) -> CodePolicy:
    """A policy that is far from uniform. `allowed`: how many ids can be drawn, the end among them."""
    torch.manual_seed(0)
    model = MODELS[name](**fields)
    tokenizer = PIECES
    if allowed is not None:
        kept = [PIECES.eos_id, *range(V - allowed + 1, V)]
        tokenizer = SimpleNamespace(pad_id=0, eos_id=PIECES.eos_id, vocab_size=V, decode=PIECES.decode)
        tokenizer.banned = [one for one in range(V) if one not in kept]
    policy = CodePolicy(model, tokenizer, value=value)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy.eval()


@pytest.fixture(params=MODELS)
def policy(request):
    return make(request.param)


def some_prompts(seed: int = 0, lengths=LENGTHS) -> list[list[int]]:
    """Ids of all kinds after the mark of a grid, as every prompt begins with one."""
    generator, mark = torch.Generator().manual_seed(seed), PIECES.mark_ids[0]
    return [[mark, *torch.randint(3, V, (length - 1,), generator=generator).tolist()] for length in lengths]


def draw(policy, prompts, n=3, config=SampleConfig(max_new_tokens=8), seed=0):
    ids, mask = pad_left(prompts, PIECES.pad_id)
    return ids, mask, policy.sample(ids, mask, n, config, torch.Generator().manual_seed(seed))


def read_alone(policy, prompt, response, *, network=False):
    """Logits and hidden states before each token of one response, (T, ...)."""
    backbone = policy.critic if network else policy.actor
    row, at = torch.tensor([prompt + response]), slice(len(prompt) - 1, len(prompt) + len(response) - 1)
    if isinstance(backbone.model, GPT):
        return backbone.model(row)[0, at], backbone.model.hidden(row)[0, at]
    out = backbone.model(row, use_cache=False, output_hidden_states=True)
    return out.logits[0, at], out.hidden_states[-1][0, at]


def oracle(policy, prompt, response, config):
    """Log-probabilities, entropies and values (T,) of one response."""
    logits, hidden = read_alone(policy, prompt, response)
    logits = logits[:, :V].clone()
    logits[:, list(policy.tokenizer.banned)] = float("-inf")
    logits = TemperatureLogitsWarper(config.temperature)(None, logits)
    if config.top_k is not None:
        logits = TopKLogitsWarper(config.top_k)(None, logits)
    if config.top_p is not None:
        logits = TopPLogitsWarper(config.top_p)(None, logits)
    distribution = Categorical(logits=logits)
    if policy.critic is not None:
        _, hidden = read_alone(policy, prompt, response, network=True)
    return distribution.log_prob(torch.tensor(response)), distribution.entropy(), policy.value(hidden).squeeze(-1)


def rows_of(prompts, responses, n):
    """(row, prompt, response) of each."""
    lengths = responses.mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        yield row, prompts[row // n], responses.ids[row, :length].tolist()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_draws_and_scores_are_those_of_the_model_alone_on_each_row(policy, way):
    config, prompts = SampleConfig(max_new_tokens=8, **way), some_prompts()
    ids, mask, drawn = draw(policy, prompts, 3, config)
    with torch.no_grad():
        scores = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
        for row, prompt, response in rows_of(prompts, drawn, 3):
            logprobs, entropy, values = oracle(policy, prompt, response, config)
            here = (row, slice(len(response)))
            assert_close(drawn.logprobs[here], logprobs, atol=1e-5, rtol=0)
            assert_close(drawn.values[here], values, atol=1e-5, rtol=0)
            assert_close(scores.logprobs[here], logprobs, atol=1e-5, rtol=0)
            assert_close(scores.entropy[here], entropy, atol=1e-5, rtol=0)
            assert_close(scores.values[here], values, atol=1e-5, rtol=0)
    assert (drawn.support is None) == (config.top_k is None and config.top_p is None)
    assert drawn.logprobs[drawn.mask].std() > 0.1  # far from uniform


@pytest.mark.parametrize("name", MODELS)
def test_outside_the_mask_everything_is_zero_and_padding(name):
    policy = make(name, allowed=9)
    ids, mask, drawn = draw(policy, some_prompts(), 8, SampleConfig(max_new_tokens=20, top_k=7))
    assert not drawn.mask.all()
    scores = policy(ids, mask, drawn.ids, drawn.mask, SampleConfig(), drawn.support)
    for part in (drawn.logprobs, drawn.values, scores.logprobs, scores.entropy, scores.values):
        assert (part[~drawn.mask] == 0).all()
    assert (drawn.ids[~drawn.mask] == PIECES.pad_id).all()


@pytest.mark.parametrize("name", MODELS)
def test_a_value_network_is_read_in_the_place_of_the_trunk(name):
    policy, prompts = make(name, value="network", allowed=6), some_prompts()
    config = SampleConfig(max_new_tokens=12)
    ids, mask, drawn = draw(policy, prompts, 3, config)
    scores = policy(ids, mask, drawn.ids, drawn.mask, config)
    for row, prompt, response in rows_of(prompts, drawn, 3):
        _, _, values = oracle(policy, prompt, response, config)
        assert_close(drawn.values[row, : len(response)], values.detach(), atol=1e-5, rtol=0)
        assert_close(scores.values[row, : len(response)], values, atol=1e-5, rtol=0)
    scores.values.sum().backward()
    assert all(one.grad is None or not one.grad.any() for one in policy.actor.parameters())
    assert any(one.grad.any() for one in policy.critic.parameters() if one.grad is not None)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_drawn_stays_exact_where_ended_responses_are_read_no_further(name, monkeypatch):
    policy, prompts = make(name, value="network", allowed=5), some_prompts()  # the end about every fifth token
    config, kept = SampleConfig(max_new_tokens=40), []
    select = policy.actor.select
    monkeypatch.setattr(policy.actor, "select", lambda cache, rows: kept.append(len(rows)) or select(cache, rows))
    _, _, drawn = draw(policy, prompts, 2, config)
    assert kept and sorted(kept, reverse=True) == kept and kept[0] <= 4  # noqa: PT018 (of 8 rows)
    assert drawn.finished.all()
    with torch.no_grad():
        for row, prompt, response in rows_of(prompts, drawn, 2):
            logprobs, _, values = oracle(policy, prompt, response, config)
            assert_close(drawn.logprobs[row, : len(response)], logprobs, atol=1e-5, rtol=0)
            assert_close(drawn.values[row, : len(response)], values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pads", [0, 7, 31])
def test_padding_on_the_left_changes_nothing(policy, pads):
    config, prompts = SampleConfig(max_new_tokens=6), some_prompts(lengths=(12, 12))
    bare = draw(policy, prompts, 2, config)[2]
    ids, mask = pad_left(prompts, PIECES.pad_id)
    ids = torch.cat((torch.full((2, pads), PIECES.pad_id), ids), dim=1)
    mask = torch.cat((torch.zeros(2, pads, dtype=mask.dtype), mask), dim=1)
    with torch.no_grad():
        scores = policy(ids, mask, bare.ids, bare.mask, config)
    assert_close(scores.logprobs, bare.logprobs, atol=1e-5, rtol=0)
    assert_close(scores.values, bare.values, atol=1e-5, rtol=0)
    again = policy.sample(ids, mask, 2, config, torch.Generator().manual_seed(0))
    assert torch.equal(again.ids, bare.ids)
    assert_close(again.logprobs, bare.logprobs, atol=1e-5, rtol=0)


def test_ten_thousand_draws_hold_every_id_of_programs_and_no_other():
    torch.manual_seed(0)
    policy = CodePolicy(grid_gpt(num_layers=1), PIECES)  # untrained: about uniform
    ids, mask, drawn = draw(policy, some_prompts(), 300, SampleConfig(max_new_tokens=10))
    tokens = drawn.ids[drawn.mask]
    assert len(tokens) >= 10_000
    # Of V = 122 ids 15 are banned: without the ban, about 1,200 of these draws would be one of them.
    assert set(tokens.tolist()) == set(range(V)) - set(PIECES.banned)
    assert {PIECES.pad_id, PIECES.bos_id} <= set(PIECES.banned)


def test_frequencies_of_draws_are_the_probabilities():
    policy, prompt = make("grids", allowed=6), some_prompts(lengths=(9,))
    _, _, drawn = draw(policy, prompt, 20_000, SampleConfig(max_new_tokens=1))
    with torch.no_grad():
        logits = read_alone(policy, prompt[0], [0])[0][0]
    expected = logits.masked_fill(policy.banned, float("-inf")).softmax(-1)
    observed = torch.bincount(drawn.ids[:, 0], minlength=V) / 20_000
    assert_close(observed, expected, atol=0.015, rtol=0)  # over 4 standard deviations: sqrt(0.25 / 20,000) = 0.0035


def test_the_end_is_the_last_token_of_the_mask_and_padding_follows():
    policy = make("llama", allowed=6)
    _, _, drawn = draw(policy, some_prompts(), 16, SampleConfig(max_new_tokens=9))
    ends = (drawn.ids == PIECES.eos_id) & drawn.mask
    assert torch.equal(ends.any(1), drawn.finished)
    assert 0 < drawn.finished.sum() < len(drawn.finished)
    for ids, mask, finished in zip(drawn.ids, drawn.mask, drawn.finished):
        length = int(mask.sum())
        assert mask[:length].all()
        assert (ids[:length] == PIECES.eos_id).sum() == int(finished)
        assert (ids[length - 1] == PIECES.eos_id) == finished
        assert finished or length == 9


def test_the_end_has_a_log_probability_with_a_gradient():
    policy, prompt = make("grids"), some_prompts(lengths=(5,))
    ids, mask = pad_left(prompt, 0)
    end = torch.tensor([[PIECES.eos_id]])
    policy(ids, mask, end, end > 0, SampleConfig()).logprobs.sum().backward()
    assert policy.actor.model.head.weight.grad.abs().sum() > 0


def test_greedy_takes_the_likeliest_allowed_token(policy):
    prompts = some_prompts()
    _, _, drawn = draw(policy, prompts, 2, SampleConfig(max_new_tokens=7, temperature=0))
    with torch.no_grad():
        for row, prompt, response in rows_of(prompts, drawn, 2):
            logits = read_alone(policy, prompt, response)[0][:, :V]
            assert logits.masked_fill(policy.banned, float("-inf")).argmax(-1).tolist() == response, row
    assert torch.equal(drawn.ids[::2], drawn.ids[1::2])


def test_the_entropy_of_an_untrained_model_is_that_of_the_uniform_distribution():
    torch.manual_seed(0)
    model = grid_gpt(num_layers=1, tie_embeddings=False)
    torch.nn.init.zeros_(model.head.weight)
    policy = CodePolicy(model, PIECES)
    ids, mask, drawn = draw(policy, some_prompts())
    scores = policy(ids, mask, drawn.ids, drawn.mask, SampleConfig())
    uniform = torch.tensor(float(V - len(PIECES.banned))).log()
    assert_close(scores.entropy[drawn.mask], uniform.expand(int(drawn.mask.sum())))
    assert_close(scores.logprobs[drawn.mask], -uniform.expand(int(drawn.mask.sum())))


@pytest.mark.parametrize("way", [{}, {"temperature": 0.7, "top_p": 0.8}], ids=str)
def test_gradients_through_the_shared_prompt_are_those_of_separate_rows(policy, way):
    config, prompts = SampleConfig(max_new_tokens=8, **way), some_prompts()
    ids, mask, drawn = draw(policy, prompts, 3, config)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(3, *drawn.ids.shape, generator=generator) / drawn.mask.sum()
    scores = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
    together = (torch.stack((scores.logprobs, scores.entropy, scores.values)) * weights).sum()
    together.backward()
    shared = {name: one.grad for name, one in policy.named_parameters()}
    policy.zero_grad(set_to_none=True)
    alone = 0
    for row, prompt, response in rows_of(prompts, drawn, 3):
        parts = torch.stack(oracle(policy, prompt, response, config))
        alone = alone + (parts * weights[:, row, : len(response)]).nan_to_num().sum()
    alone.backward()
    assert_close(together, alone, atol=1e-5, rtol=0)
    assert max(one.abs().max() for one in shared.values() if one is not None) > 1e-3
    for name, one in policy.named_parameters():
        if one.grad is not None:
            assert_close(shared[name], one.grad, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("way", [{}, {"top_k": 5}], ids=str)
def test_scored_in_parts_everything_is_the_same(policy, way, monkeypatch):
    config = SampleConfig(max_new_tokens=6, **way)
    ids, mask, drawn = draw(policy, some_prompts(), 3, config)
    results = []
    for numbers in (2**26, 5 * 6 * V):  # all 12 rows, or 5, 5 and 2 of them (4 of the model with more logits than ids)
        monkeypatch.setattr("utils.rl.policy._NUMBERS", numbers)
        scores = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
        (scores.logprobs.sum() + scores.entropy.sum() + scores.values.sum()).backward()
        gradients = [one.grad for one in policy.parameters() if one.grad is not None]
        results.append((scores.logprobs, scores.entropy, scores.values, gradients))
        policy.zero_grad(set_to_none=True)
    for whole, part in zip(*results):
        assert_close(part, whole)


def test_gradients_are_finite_where_responses_end_early_under_a_cut():
    policy = make("grids", allowed=5)
    config = SampleConfig(max_new_tokens=20, top_p=0.7)
    ids, mask, drawn = draw(policy, some_prompts(), 4, config)
    assert drawn.mask.sum(1).min() < drawn.mask.shape[1]
    assert unpacked(drawn.support, V)[~drawn.mask].all()
    scores = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
    (scores.logprobs.sum() + scores.entropy.sum() + scores.values.sum()).backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in policy.parameters())


def test_equal_seeds_give_equal_draws_and_others_others(policy):
    first, same, other = (draw(policy, some_prompts(), seed=seed)[2].ids for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize("name", MODELS)
def test_sampling_and_scoring_run_in_bf16(name):
    policy, prompts = make(name, value="network"), some_prompts()
    config = SampleConfig(max_new_tokens=8, top_p=0.9)
    with torch.autocast("cpu", torch.bfloat16):
        ids, mask, drawn = draw(policy, prompts, 3, config)
        scores = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
    for part in (drawn.logprobs, scores.logprobs, scores.entropy, drawn.values, scores.values):
        assert part.dtype == torch.float32
        assert part.isfinite().all()
    exact = policy(ids, mask, drawn.ids, drawn.mask, config, drawn.support)
    # bf16 keeps 8 bits: about 0.4% of logits of a size of a few.
    assert (scores.logprobs - exact.logprobs).abs().max() < 0.2
    assert (scores.values - exact.values).abs().max() < 0.1
    scores.logprobs.sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in policy.parameters())


@pytest.mark.parametrize("name", ["grids", "gpt2"])
def test_a_policy_in_training_scores_what_it_drew_without_dropout(name):
    fields = {"dropout": 0.5} if name == "grids" else {}
    policy, prompts = make(name, **fields), some_prompts()
    ids, mask, before = draw(policy, prompts)
    policy.train()
    again = draw(policy, prompts)[2]
    assert torch.equal(again.ids, before.ids)
    assert policy.training  # before the draw and after it
    scores = policy(ids, mask, before.ids, before.mask, SampleConfig())
    assert_close(scores.logprobs, before.logprobs, atol=1e-5, rtol=0)
    with torch.no_grad():
        row = torch.tensor([some_prompts()[3]])
        policy.actor.model.train()  # as a warm start does
        assert not torch.equal(policy.actor.model(row)[0], policy.actor.model(row)[0])


def test_the_programs_are_the_texts_of_what_was_drawn():
    policy = make("grids")
    _, _, drawn = draw(policy, some_prompts(), 2, SampleConfig(max_new_tokens=30, top_k=4))
    texts = policy.programs(drawn)
    for text, ids, mask in zip(texts, drawn.ids, drawn.mask):
        assert text == "".join(PIECES.texts[one] for one in ids[mask] if one != PIECES.eos_id)


def test_a_response_is_cut_at_the_context_and_a_prompt_that_fills_it_is_refused():
    policy = make("grids")
    assert draw(policy, some_prompts(lengths=(77,)))[2].ids.shape[1] == 3  # of 80
    with pytest.raises(ValueError, match="A prompt of 80 tokens leaves none of the context of 80"):
        draw(policy, some_prompts(lengths=(80,)))


def test_greedy_draws_cannot_be_scored_at_temperature_0():
    policy = make("grids")
    greedy = SampleConfig(max_new_tokens=4, temperature=0)
    ids, mask, drawn = draw(policy, some_prompts(), 1, greedy)
    assert not drawn.logprobs.any()
    with pytest.raises(ValueError, match="temperature 0 draws one token alone"):
        policy(ids, mask, drawn.ids, drawn.mask, greedy)


def test_without_values_the_rest_is_the_same_and_the_critic_is_not_read(monkeypatch):
    policy = make("grids", value="network")
    ids, mask, drawn = draw(policy, some_prompts())
    given = (ids, mask, drawn.ids, drawn.mask, SampleConfig())
    whole = policy(*given)
    monkeypatch.setattr(policy.critic, "read", None)
    part = policy(*given, values=False)
    assert torch.equal(part.logprobs, whole.logprobs)
    assert not part.values.any()


@pytest.mark.parametrize("value", ["head", "network"])
def test_saved_weights_give_the_same_policy(value, tmp_path):
    policy, other = make("grids", value=value), CodePolicy(grid_gpt(), PIECES, value=value).eval()
    torch.save(policy.state_dict(), tmp_path / "policy.pt")
    other.load_state_dict(torch.load(tmp_path / "policy.pt", weights_only=True))
    _, _, drawn = draw(policy, some_prompts())
    again = draw(other, some_prompts())[2]
    assert torch.equal(drawn.ids, again.ids)
    assert torch.equal(drawn.values, again.values)


def test_a_new_value_is_0_and_its_network_a_copy_of_the_actor_as_it_is_then():
    policy = make("grids", value="network")
    assert not torch.equal(policy.critic.model.head.weight, policy.actor.model.head.weight)  # stirred apart
    before = [*policy.parameters()]
    policy.reset_value()
    assert all(ours is theirs for ours, theirs in zip(policy.parameters(), before))  # in place
    for ours, copied in zip(policy.actor.parameters(), policy.critic.parameters()):
        assert torch.equal(ours, copied)
        assert ours is not copied
    assert not policy.value.weight.any()
    assert not policy.value.bias.any()
    head = make("grids")
    weights = copy.deepcopy(head.actor.state_dict())
    head.reset_value()
    assert all(torch.equal(one, weights[name]) for name, one in head.actor.state_dict().items())
    assert not head.value.weight.any()
