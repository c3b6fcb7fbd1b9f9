"""`PPOConfig`: every setting of the PPO loop, and what may change between the sessions of one run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from utils.core.config import Config
from utils.core.device import DeviceName, PrecisionName
from utils.core.tracking import TrackerName
from utils.rl.sampling import SampleConfig


class PPOConfig(Config):
    """How a policy is trained by PPO. An update is one rollout, and the passes over it that change the weights."""

    updates: int = Field(200, ge=0)
    """rollouts to train for; where the schedule is constant, a run that is done goes on once there are more"""
    prompts: int = Field(64, ge=1)
    """tasks a rollout, over all processes"""
    samples: int = Field(4, ge=1)
    """programs a task"""
    sample: SampleConfig = SampleConfig()
    """how they are drawn"""
    sample_batch: int | None = Field(None, ge=1)
    """programs drawn at a time on one process, a task's always together: as many as memory holds; another number draws
    others, as likely ones. None: a rollout's all at once, 256 in evaluations"""
    levels: Literal["steps", "difficulty"] = "steps"
    """what the curriculum parts training tasks by: the steps of their programs, or how hard they look (four quarters
    of `arc.difficulty`)"""

    epochs: int = Field(2, ge=1)
    """passes over a rollout"""
    minibatches: int = Field(4, ge=1)
    """updates of the weights a pass; a task's programs stay together"""
    micro_batch_prompts: int | None = Field(None, ge=1)
    """prompts a forward pass on one process, with all their programs, gradients accumulated in between; None: all of
    its share of a minibatch at once"""
    lr: float = Field(1.5e-4, gt=0)
    """highest learning rate"""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """course of the learning rate after the warm-up"""
    warmup_steps: int = Field(5, ge=0)
    """updates of linear rise to lr"""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """lowest learning rate of cosine and linear, over lr"""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the gradient's first and second moment"""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decay of matrices and embeddings"""
    max_grad_norm: float = Field(1.0, gt=0)
    """L2 norm that gradients are clipped to"""

    gamma: float = Field(1.0, gt=0, le=1)
    """discount a token; 1: a long program is as good as a short one"""
    lam: float = Field(0.95, ge=0, le=1)
    """lambda of the advantages: 1 trusts the outcome alone, 0 the value alone"""
    clip: float = Field(0.2, gt=0, lt=1)
    """how far a token's ratio may move in a rollout"""
    value_clip: float | None = Field(0.2, gt=0)
    """how far a value may move in a rollout; None: as far as it likes"""
    value_weight: float = Field(0.5, ge=0)
    """of the value loss beside the surrogate"""
    entropy_weight: float = Field(0.0, ge=0)
    """of the entropy bonus beside the surrogate"""
    baseline: Literal["task", "none"] = "task"
    """what is taken off a score before the value is: the mean score of the task's other programs, or nothing"""
    kl_coefficient: float = Field(0.01, ge=0)
    """of the penalty on leaving the reference, a nat"""
    kl_target: float | None = Field(None, gt=0)
    """nats a program that the coefficient is steered to; None: it stays"""
    stop_kl: float | None = Field(0.1, gt=0)
    """nats a token from the rollout's policy at which its passes end early; None: never"""

    device: DeviceName = "auto"
    """auto: cuda, then mps, then cpu"""
    precision: PrecisionName = "auto"
    """auto: bf16 where the hardware has it, else fp32"""
    seed: int = Field(0, ge=0)
    """of the choice of tasks, the draws and the order of minibatches"""
    eval_every: int = Field(20, ge=1)
    """updates between evaluations on validation tasks; the last one is evaluated too"""
    eval_tasks: int | None = Field(200, ge=1)
    """validation tasks an evaluation; None: all"""
    eval_samples: int = Field(4, ge=1)
    """programs a task in an evaluation, beside the greedy one"""
    patience: int | None = Field(None, ge=1)
    """evaluations without a better pass rate after which training stops early; None: never"""
    restore_best: bool = True
    """leave the weights of the best evaluation in the policy at the end, not the last ones"""
    shuffle_rewards: bool = False
    """deal each rollout's scores out at random among its programs: a control that must learn nothing"""
    log_every: int = Field(1, ge=1)
    """updates between logged metrics"""
    checkpoint_every: int | None = Field(None, ge=1)
    """updates between checkpoints; None: at evaluations that improve, by the clock, and at the end"""
    checkpoint_minutes: float | None = Field(5.0, gt=0)
    """minutes between checkpoints; None: not by the clock"""
    keep_last: int = Field(2, ge=1)
    """newest checkpoints kept"""
    keep_best: int = Field(1, ge=1)
    """best checkpoints kept"""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """where metrics go beside metrics.jsonl"""

    @model_validator(mode="after")
    def _consistent(self):
        if self.prompts % self.minibatches:
            raise ValueError(
                f"prompts {self.prompts} is not a multiple of minibatches {self.minibatches}; change one of them"
            )
        if self.sample.temperature == 0:
            raise ValueError("sample.temperature 0 draws one program only, from which nothing is learned; raise it")
        if self.samples == 1 and self.baseline == "task":
            raise ValueError(
                "samples 1 leaves a task no other program for the baseline 'task' to be the mean of; raise samples, or"
                " set baseline=none"
            )
        return self

    def arithmetic(self) -> dict[str, Any]:
        """The settings that decide the weights: a run resumed with others would be another experiment.

        The number of updates is one of them where the learning rate falls towards the last; at a constant rate more
        updates only go on from where fewer end.
        """
        free = _FREE_TO_CHANGE | ({"updates"} if self.schedule == "constant" else set())
        return self.model_dump(mode="json", exclude=free)


_FREE_TO_CHANGE = {
    "device", "precision", "sample_batch", "micro_batch_prompts", "log_every", "checkpoint_every", "checkpoint_minutes",
    "keep_last", "keep_best", "trackers",
}  # fmt: skip
