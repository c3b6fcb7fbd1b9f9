"""`TrainConfig`: every setting of the training loop, and what may change between the sessions of one run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from utils.core.config import Config
from utils.core.device import DeviceName, PrecisionName
from utils.core.tracking import TrackerName


class TrainConfig(Config):
    """How a model is trained. A step is one update of the weights, from `batch_size` rows."""

    max_steps: int | None = Field(None, ge=1)
    """steps to train for; give this or max_epochs"""
    max_epochs: int | None = Field(None, ge=1)
    """passes over the training split; give this or max_steps"""
    batch_size: int = Field(12, ge=1)
    """rows a step, over all processes"""
    micro_batch_size: int | None = Field(None, ge=1)
    """rows a forward pass on one process, gradients accumulated in between; None: all its rows at once"""

    lr: float = Field(1e-3, gt=0)
    """highest learning rate"""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """course of the learning rate after the warm-up"""
    warmup_steps: int = Field(100, ge=0)
    """steps of linear rise to lr"""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """lowest learning rate of cosine and linear, over lr"""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the gradient's first and second moment"""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's decay of matrices and embeddings; gains and biases are left alone"""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """L2 norm that gradients are clipped to; None: no clipping"""

    device: DeviceName = "auto"
    """auto: cuda, then mps, then cpu"""
    precision: PrecisionName = "auto"
    """auto: bf16 where the hardware has it, else fp16 with loss scaling on CUDA, else fp32"""
    compile: bool = False
    """torch.compile the model for training: about a minute at the start, faster steps after it"""
    seed: int = Field(1337, ge=0)
    """seed of weights, dropout and the order of batches"""
    deterministic: bool = False
    """refuse operations without a deterministic form (GPU; the CPU's are deterministic)"""

    log_every: int = Field(10, ge=1)
    """steps between logged training metrics"""
    eval_every: int = Field(200, ge=1)
    """steps between evaluations on the validation split; the last step is evaluated too"""
    eval_batches: int | None = Field(None, ge=1)
    """batches an evaluation; None: the whole split"""
    eval_batch_size: int | None = Field(None, ge=1)
    """rows a forward pass of an evaluation; None: those of a training pass"""
    patience: int | None = Field(None, ge=1)
    """evaluations without improvement after which training stops early; None: never"""
    min_delta: float = Field(0.0, ge=0)
    """fall of the validation loss that counts as an improvement"""
    restore_best: bool = True
    """leave the weights of the best evaluation in the model at the end, not the last ones"""
    sample_every: int | None = Field(None, ge=1)
    """steps between printed samples; None: none"""

    checkpoint_every: int | None = Field(None, ge=1)
    """steps between checkpoints; None: at evaluations that improve, by the clock, and at the end"""
    checkpoint_minutes: float | None = Field(5.0, gt=0)
    """minutes between checkpoints; None: not by the clock"""
    keep_last: int = Field(2, ge=1)
    """newest checkpoints kept; with 2, one is left if the newest is damaged"""
    keep_best: int = Field(1, ge=1)
    """best checkpoints kept"""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """where metrics go beside metrics.jsonl"""

    @model_validator(mode="after")
    def _consistent(self):
        if (self.max_steps is None) == (self.max_epochs is None):
            raise ValueError("give train.max_steps or train.max_epochs: exactly one of them")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size};"
                " change one of them"
            )
        if self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} exceed max_steps {self.max_steps}; lower the warm-up")
        return self

    def arithmetic(self) -> dict[str, Any]:
        """The settings that decide the weights: a run resumed with others would be another experiment."""
        return self.model_dump(mode="json", exclude=_FREE_TO_CHANGE)


# A resumed session may run elsewhere, report more or less, and write more or fewer checkpoints.
_FREE_TO_CHANGE = {
    "device",
    "precision",
    "compile",
    "deterministic",
    "log_every",
    "sample_every",
    "eval_batch_size",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_last",
    "keep_best",
    "trackers",
}
