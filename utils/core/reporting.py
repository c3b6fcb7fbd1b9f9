"""The settings of training that decide no weight: a session that is taken up may change them, and stays the same run.

It may run elsewhere, report more or less, and write more or fewer checkpoints. One list, for the loop that resumes
(`training.config`) and for comparisons, which take runs that differ in these alone for alike (`experiments.compare`).
"""

from __future__ import annotations

DECIDES_NO_WEIGHT = frozenset({
    "device", "precision", "compile", "gradient_checkpointing", "deterministic",
    "log_every", "sample_every", "max_hours", "eval_batch_size", "trackers",
    "checkpoint_every", "checkpoint_minutes", "keep_last", "keep_best", "local_checkpoints",
})  # fmt: skip
