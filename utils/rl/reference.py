"""The reference: the policy as it was when training began, to which the KL penalty holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from utils.core.checkpoints import Checkpoint, Checkpoints
from utils.core.run import Run, RunError
from utils.rl.policy import CodePolicy, Scores
from utils.rl.sampling import SampleConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


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

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the policy the weights that are kept here, and a value as it was before any training, all in place."""
        (policy,) = self._policy
        for name, weight in zip(self.names, self.buffers()):
            policy.get_parameter(name).copy_(weight)
        policy.reset_value()


def reference_of(policy: CodePolicy) -> Reference:
    """The reference of a policy as it is now; of one that PPO has trained since, as it was before that.

    `memory` says what it takes.
    """
    return policy.start[0] if policy.start else Reference(policy)


def keep_reference(reference: Reference, run: Run, fabric: Fabric, *, fresh: bool) -> None:
    """Write the reference's weights down with a `fresh` run; put them back, in place, with one that is taken up.

    So every session holds the policy to the same reference, whatever it was made from this time. A collective call.
    Raises OSError where the disk refuses it, `RunError` where it is gone.
    """
    if fresh:
        if fabric.is_global_zero:
            kept = kept_in(run)
            kept.folder.mkdir(exist_ok=True)
            kept.save(0, reference.state_dict())
        fabric.barrier()
        return
    _load(reference, run, fabric.broadcast(kept_in(run).last() if fabric.is_global_zero else None))


def put_back_start(policy: CodePolicy, run: Run) -> None:
    """Give a newly built policy the weights that a run of it began with. Raises `RunError` where they are gone."""
    reference = Reference(policy)
    _load(reference, run, kept_in(run).last())
    reference.put_back()


def _load(reference: Reference, run: Run, saved: Checkpoint | None) -> None:
    if saved is None:
        raise RunError(
            f"{run.path.name} has lost the weights of its reference, {kept_in(run).folder}, which it began with. Bring"
            " the folder back, or start a new run."
        )
    reference.load_state_dict(saved.load())


def kept_in(run: Run) -> Checkpoints:
    """Where a run keeps the weights of its reference."""
    return Checkpoints(run.path / "checkpoints" / "reference", keep_last=1)
