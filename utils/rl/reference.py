"""The reference: the policy as it was when training began, to which the KL penalty holds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from utils.rl.policy import CodePolicy, SampleConfig, Scores


class Reference(nn.Module):
    """Scores responses with the weights that the policy had when this was made. Never trained, never with dropout.

    It holds a copy of what can be trained in the actor, and reads everything else, which cannot change, from the policy
    itself: all weights of a policy trained whole, the upper blocks of one whose lower blocks are frozen, the adapters
    of one with LoRA (those of a fresh one add nothing: the reference is then the model without them).
    """

    def __init__(self, policy: CodePolicy):
        super().__init__()
        self._policy = (policy,)  # not a part of this module: neither moved nor saved with it
        trained = {name: one for name, one in policy.named_parameters() if one.requires_grad}
        self.names = [name for name in trained if name.startswith("actor.")]
        for at, name in enumerate(self.names):
            self.register_buffer(f"start{at}", trained[name].detach().clone())

    @property
    def memory(self) -> int:
        """Bytes that it takes beside the policy."""
        return sum(one.untyped_storage().nbytes() for one in self.buffers())

    @torch.no_grad()
    def forward(
        self,
        prompts: Tensor,
        prompt_mask: Tensor,
        ids: Tensor,
        mask: Tensor,
        config: SampleConfig,
        support: Tensor | None = None,
    ) -> Scores:
        """As of `CodePolicy`; the values are 0."""
        (policy,) = self._policy
        weights, mode = dict(zip(self.names, self.buffers())), policy.training
        policy.eval()
        try:
            given = (prompts, prompt_mask, ids, mask, config, support)
            return functional_call(policy, weights, given, {"values": False})
        finally:
            policy.train(mode)


def reference_of(policy: CodePolicy) -> Reference:
    """The reference of a policy as it is now. `memory` says what it takes."""
    return Reference(policy)
