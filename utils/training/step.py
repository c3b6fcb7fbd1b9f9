"""`Stepper`: one update of the weights from one global batch, in as many passes as memory and processes ask for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils.core.run import RunError
from utils.training.config import TrainConfig
from utils.training.failing import Place, name_rows
from utils.training.memory import OutOfMemory, Rows, out_of_memory
from utils.training.objectives import IGNORED, Batch, Objective, count_targets, shard

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class NonFiniteError(RunError):
    """The loss or the gradient is NaN or infinite; the weights are as before the step."""


class Stepper:
    """Makes steps with a model and its optimiser, and with the pair that Fabric wrapped around them.

    `rows` says how many rows go through the model at once. Where memory runs out in a forward or backward pass, the
    gradients so far are thrown away and the step is made from the same batch and the same generators with fewer.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        wrapped: tuple[Any, Any],
        objective: Objective,
        config: TrainConfig,
        rows: Rows,
        fabric: Fabric,
        *,
        scaled: bool,
    ):
        """`scaled`: the loss is (fp16), so an infinite gradient is the scaler's to answer, which skips the step."""
        self.model, self.optimizer = model, optimizer
        self.train_model, self.train_optimizer = wrapped
        self.objective, self.config, self.rows, self.fabric, self.scaled = objective, config, rows, fabric, scaled
        kept, weights = model.state_dict(keep_vars=True), {id(one) for one in model.parameters()}
        self._statistics = [one for one in kept.values() if isinstance(one, Tensor) and id(one) not in weights]

    def step(
        self, batch: Batch, step: int, rate: float, place: Place, told: Callable[[], bool]
    ) -> tuple[dict[str, float], bool]:
        """The update that follows step `step`. Returns its mean metrics, and whether any process was `told` to stop by
        then.

        Raises `NonFiniteError`, `OutOfMemory`, and `RowError` where single rows fail, all before the weights change.
        """
        total = count_targets(batch)
        if total == 0:
            raise ValueError(f"{place} has no targets: every label is {IGNORED}.")
        sums = self._gradients(batch, total, step, place)
        stop = torch.tensor(float(told()), device=self.fabric.device)
        values = torch.stack([*map(torch.as_tensor, sums.values()), stop])
        values = self.fabric.all_reduce(values, reduce_op="sum")
        norm = self._clip()
        *means, stops, norm = torch.cat((values, norm.reshape(1))).tolist()  # the step's one wait for the device
        metrics = {**dict(zip(sums, means)), "grad_norm": norm}
        if not math.isfinite(metrics["loss"]) or not (self.scaled or math.isfinite(norm)):
            self.optimizer.zero_grad()
            raise NonFiniteError(
                f"Loss {metrics['loss']} and gradient norm {norm} before step {step + 1}, in {place}. The weights are"
                f" those of step {step}. See the batch with {place.call}; a lower train.lr or fp32 often helps."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._update(step)
        self.optimizer.zero_grad()
        return metrics, stops > 0

    def _update(self, step: int) -> None:
        """Apply the gradients. Fewer rows at once would not help here: they are gone, but for their gradients."""
        try:
            self.train_optimizer.step()
        except Exception as error:
            if not out_of_memory(error):
                raise
            refusal = str(error).split("\n")[0] or type(error).__name__
        else:
            return
        numbers = sum(one.numel() for one in self.model.parameters() if one.requires_grad)
        raise OutOfMemory(
            f"Out of memory in the update after step {step}: {refusal}. Weights, gradients and AdamW's two moments of"
            f" {numbers:,} parameters take {16 * numbers / 2**30:.2f} GiB in fp32, whatever the rows at once. Take a"
            " smaller model, adapters (LoRA), or a device with more memory."
        )

    def _gradients(self, batch: Batch, total: int, step: int, place: Place) -> dict[str, Tensor]:
        """Accumulate the gradient of the mean over the batch's targets; this process's share of the metrics."""
        own = shard(batch, self.fabric.global_rank, self.fabric.world_size)
        before = [(value, value.clone()) for value in self._statistics]

        def undo() -> None:
            self.optimizer.zero_grad()
            with torch.no_grad():
                for value, old in before:
                    value.copy_(old)

        try:
            return self.rows.run(own, lambda parts: self._accumulate(parts, total, step), undo)
        except Exception as error:
            undo()
            if not isinstance(error, RunError) and not out_of_memory(error):
                name_rows(error, self.model, self.objective, batch, step, place, self.fabric)
            raise

    def _accumulate(self, parts: list[Batch], total: int, step: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            weight = count_targets(part) / total
            part = self.fabric.to_device(part)
            waiting = index < len(parts) - 1
            with self.fabric.no_backward_sync(self.train_model, enabled=waiting):
                means = self.objective(self.train_model, part, step)
                # Processes average their gradients, so each weights its share by their number.
                self.fabric.backward(means["loss"] * (weight * self.fabric.world_size))
            for name, value in means.items():
                sums[name] = sums.get(name, 0.0) + value.detach() * weight
        return sums

    def _clip(self) -> Tensor:
        """Clip the gradients; their norm before it."""
        limit = self.config.max_grad_norm or math.inf
        return self.fabric.clip_gradients(
            self.train_model, self.train_optimizer, max_norm=limit, error_if_nonfinite=False
        )
