"""The policy: a causal language model that writes programs, and the value it expects of what it has written so far.

Tokens are drawn from, and their log-probabilities are those of, one distribution: the model's, without the tokens that
no program holds, over the temperature, cut by top-k and top-p. Sampled ids are kept and scored as they are; no text is
ever read back into ids. Shapes: P prompts, n samples of each, N = P n responses, L and T tokens, V ids.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from utils.models.transformer import GPT
from utils.rl.backbone import Backbone, backbone_of, recomputing
from utils.rl.sampling import Growing, Responses, SampleConfig, draw, unpacked

if TYPE_CHECKING:
    from utils.rl.reference import Reference

_NUMBERS = 2**26  # of logits: beyond, rows are scored in parts whose several copies of them are not kept for gradients


class Tokenizer(Protocol):
    """What a policy needs of its tokenizer. `banned` are ids that no program holds."""

    pad_id: int
    eos_id: int
    vocab_size: int
    banned: Sequence[int]

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Scores(NamedTuple):
    """What the policy says of given responses; each (N, T), 0 where the mask is False."""

    logprobs: Tensor
    entropy: Tensor
    """nats of the distribution that each token is drawn from"""
    values: Tensor


class CodePolicy(nn.Module):
    """A causal language model and a value: a linear head on its trunk, or a network of its own (a copy and a head).

    The copy shares the weights that are frozen. `facts` says what the model is, for a report.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, *, value: Literal["head", "network"] = "head"):
        super().__init__()
        self.tokenizer = tokenizer
        self.actor: Backbone = backbone_of(model)
        self.critic: Backbone | None = _copied(model) if value == "network" else None
        self.value = nn.Linear(self.actor.width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        banned = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
        banned[list(tokenizer.banned)] = True
        self.register_buffer("banned", banned, persistent=False)
        self.facts: dict[str, str] = {}
        self.start: tuple[Reference, ...] = ()
        """what PPO trained it from, once it has; not a part of this module"""

    def train(self, mode: bool = True) -> CodePolicy:
        """As of any module, but without dropout: PPO's ratio is 1 before the first step only where a program is scored
        by the network that drew it. In training, blocks that are told to compute their activations again do so.
        """
        super().train(False)
        self.training = mode
        for module in recomputing(self):
            module.training = mode
        return self

    @torch.no_grad()
    def reset_value(self) -> None:
        """Make the value 0, and the value network, where there is one, equal to the model as it is now; in place."""
        self.value.weight.zero_()
        self.value.bias.zero_()
        if self.critic is not None:
            for ours, theirs in zip(self.critic.parameters(), self.actor.parameters()):
                ours.copy_(theirs)

    def forward(
        self,
        prompts: Tensor,
        prompt_mask: Tensor,
        ids: Tensor,
        mask: Tensor,
        config: SampleConfig,
        support: Tensor | None = None,
        *,
        values: bool = True,
    ) -> Scores:
        """Score responses `ids` (N, T) to `prompts` (P, L), padded on the left, each prompt's N / P side by side.

        `support` is that of the `Responses`. values=False leaves the values at 0, and a critic unread.
        """
        if config.temperature == 0:
            raise ValueError("temperature 0 draws one token alone and has no log-probabilities; score with another.")
        logits, hidden = self._read(self.actor, prompts, prompt_mask, ids, mask)
        drawn, entropy = self._scored(logits, ids, config.temperature, support)
        if not values:
            value = torch.zeros_like(drawn)
        else:
            if self.critic is not None:
                _, hidden = self._read(self.critic, prompts, prompt_mask, ids, mask)
            value = self._value(hidden)
        return Scores(*(torch.where(mask, one, 0) for one in (drawn, entropy, value)))

    def _read(self, net: Backbone, prompts: Tensor, prompt_mask: Tensor, ids: Tensor, mask: Tensor):
        """Logits (N, T, V) and hidden states (N, T, C) before each of `ids`: the prompts are read once."""
        if net.together:
            return net.read_together(prompts, prompt_mask, ids, mask)
        n, T = len(ids) // len(prompts), ids.shape[1]
        together = torch.cat((prompt_mask.repeat_interleave(n, 0), mask[:, :-1].to(prompt_mask.dtype)), dim=1)
        if net.whole:
            return net.read(torch.cat((prompts.repeat_interleave(n, 0), ids[:, :-1]), dim=1), together, None, T)
        cache = net.new_cache()
        logits, hidden = net.read(prompts, prompt_mask, cache, 1)  # (P, 1, ...)
        logits, hidden = logits.repeat_interleave(n, 0), hidden.repeat_interleave(n, 0)
        if T == 1:
            return logits, hidden
        more, further = net.read(ids[:, :-1], together, net.repeat(cache, n), T - 1)
        return torch.cat((logits, more), dim=1), torch.cat((hidden, further), dim=1)

    def _scored(self, logits: Tensor, ids: Tensor, temperature: float, support: Tensor | None) -> tuple[Tensor, Tensor]:
        """The log-probabilities of ids (N, T) under logits (N, T, V), and the entropies, (N, T)."""
        rows = max(1, _NUMBERS // logits[0].numel())
        if len(logits) > rows:
            cuts = [None] * -(-len(logits) // rows) if support is None else support.split(rows)
            parts = zip(logits.split(rows), ids.split(rows), cuts)
            scored = [
                checkpoint(self._scored, one, drawn, temperature, cut, use_reentrant=False) for one, drawn, cut in parts
            ]
            return tuple(torch.cat(part) for part in zip(*scored))
        logits = self._allowed(logits).float() / temperature
        if support is not None:
            logits = logits.masked_fill(~unpacked(support, logits.shape[-1]), float("-inf"))
        logprobs = logits.log_softmax(-1)
        drawn = logprobs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        safe = logprobs.masked_fill(logits.isinf(), 0)  # exp(0) * 0: what cannot be drawn adds nothing
        return drawn, -(safe.exp() * safe).sum(-1)

    def _allowed(self, logits: Tensor) -> Tensor:
        return logits[..., : len(self.banned)].masked_fill(self.banned, float("-inf"))

    def _value(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (...), in float32 whatever the model computes in."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.value(hidden.float()).squeeze(-1)

    @torch.no_grad()
    def sample(
        self, prompts: Tensor, prompt_mask: Tensor, n: int, config: SampleConfig, generator: torch.Generator
    ) -> Responses:
        """Draw n responses to each of `prompts` (P, L), padded on the left as `prompt_mask` (P, L) says.

        Dropout is off meanwhile. Raises ValueError where a prompt leaves none of the context.
        """
        mode = self.training
        self.eval()
        try:
            return self._sample(prompts, prompt_mask, n, config, generator)
        finally:
            self.train(mode)

    def _sample(self, prompts, prompt_mask, n, config, generator) -> Responses:
        P, L = prompts.shape
        N, T = P * n, min(config.max_new_tokens, self.actor.context_length - L)
        if T < 1:
            raise ValueError(f"A prompt of {L} tokens leaves none of the context of {self.actor.context_length}.")
        nets = [self.actor] if self.critic is None else [self.actor, self.critic]
        caches = [net.sampling_cache(L, T, n) for net in nets]
        read = [net.read(prompts, prompt_mask, cache, 1) for net, cache in zip(nets, caches)]
        caches = [net.repeat(cache, n) for net, cache in zip(nets, caches)]
        read = [tuple(part.repeat_interleave(n, 0) for part in one) for one in read]
        seen = torch.cat((prompt_mask, prompt_mask.new_ones(P, T)), dim=1).repeat_interleave(n, 0)
        drawn = Growing(N, T, self.tokenizer.pad_id, len(self.banned), config, prompts.device)
        going = torch.ones(N, dtype=torch.bool, device=prompts.device)
        rows = torch.arange(N, device=prompts.device)  # the responses that are still read, M of N
        for place in range(T):
            logits = self._allowed(read[0][0][:, -1]).float()  # (M, V)
            token, logprob, cut = draw(logits, config, generator)
            drawn.write(place, rows, going[rows], token, logprob, self._value(read[-1][1][:, -1]), cut)
            going[rows] &= token != self.tokenizer.eos_id
            left = going.view(P, n).any(1).repeat_interleave(n) if self.actor.together else going
            left = left[rows].nonzero().squeeze(1)  # rows of M that have not ended
            if place == T - 1 or not len(left):
                break
            if 2 * len(left) <= len(rows):  # the others are read no further
                rows, token = rows[left], token[left]
                caches = [net.select(cache, left) for net, cache in zip(nets, caches)]
            mask = seen[rows, : L + place + 1]
            read = [net.read(token[:, None], mask, cache, 1) for net, cache in zip(nets, caches)]
        return drawn.responses(~going)

    @torch.no_grad()
    def programs(self, responses: Responses) -> list[str]:
        """The text of each response."""
        rows = zip(responses.ids.tolist(), responses.mask.sum(1).tolist())
        return [self.tokenizer.decode(row[:length]) for row, length in rows]


def _copied(model: nn.Module) -> Backbone:
    """A copy that shares the weights that are frozen; a head of its own, which no value reads, is not trained."""
    copied = copy.deepcopy(model, {id(one): one for one in model.parameters() if not one.requires_grad})
    head = copied.head if isinstance(copied, GPT) else copied.get_output_embeddings()
    if not any(one.weight is head.weight for one in copied.modules() if isinstance(one, nn.Embedding)):
        head.requires_grad_(False)
    return backbone_of(copied)
