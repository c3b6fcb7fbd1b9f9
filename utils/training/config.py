"""`TrainConfig`: every setting of the training loop, and what may change between the sessions of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from utils.core.config import Config
from utils.core.device import DeviceName, PrecisionName
from utils.core.reporting import DECIDES_NO_WEIGHT
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
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """course of the learning rate after the warm-up; wsd: stable, then a decay at the end"""
    warmup_steps: int = Field(100, ge=0)
    """steps of linear rise to lr"""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """lowest learning rate of cosine, linear and wsd, over lr"""
    decay_share: float = Field(0.2, gt=0, le=1)
    """share of all steps over which wsd decays, at the end"""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the gradient's first and second moment"""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's decay of matrices and embeddings; gains and biases are left alone"""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """L2 norm that gradients are clipped to; None: no clipping"""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """share of each target that is spread over all classes, in training alone"""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """decay of an average of the weights, which is then what is evaluated, kept and exported; None: no average"""

    device: DeviceName = "auto"
    """auto: cuda, then mps, then cpu"""
    precision: PrecisionName = "auto"
    """auto: bf16 where the hardware has it, else fp16 with loss scaling on CUDA, else fp32"""
    compile: bool = False
    """torch.compile the model for training: about a minute at the start, faster steps after it"""
    gradient_checkpointing: bool = False
    """keep only the blocks' inputs and compute the rest again going back: less memory, about a third more time"""
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
    sample_every: int | None = Field(None, ge=0)
    """steps between printed samples; None: one with each evaluation, 0: none"""
    max_hours: float | None = Field(None, gt=0)
    """hours after which a session (one run; or a whole search, study or list of recipes) stops, saved, before its
    machine is taken away; None: no limit"""

    checkpoint_every: int | None = Field(None, ge=1)
    """steps between checkpoints; None: at evaluations that improve, by the clock, and at the end"""
    checkpoint_minutes: float | None = Field(5.0, gt=0)
    """minutes between checkpoints; None: not by the clock"""
    keep_last: int = Field(2, ge=1)
    """newest checkpoints kept; with 2, one is left if the newest is damaged"""
    keep_best: int = Field(1, ge=1)
    """best checkpoints kept"""
    local_checkpoints: Path | None = None
    """folder on this machine's own disk to write checkpoints to before they are copied to the run's; None: only where
    the run is on a mounted Google Drive, and then a temporary one"""
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
        if self.schedule == "wsd" and self.max_steps is not None:
            decay = round(self.decay_share * self.max_steps)
            if self.warmup_steps + decay > self.max_steps:
                raise ValueError(
                    f"warmup_steps {self.warmup_steps} and a decay of {decay} steps (decay_share {self.decay_share})"
                    f" exceed max_steps {self.max_steps}; lower one of them"
                )
        return self

    @property
    def eval_rows(self) -> int:
        """Rows of a forward pass of an evaluation."""
        return self.eval_batch_size or self.micro_batch_size or self.batch_size

    def arithmetic(self) -> dict[str, Any]:
        """The settings that decide the weights: a run resumed with others would be another experiment."""
        return self.model_dump(mode="json", exclude=set(DECIDES_NO_WEIGHT))
