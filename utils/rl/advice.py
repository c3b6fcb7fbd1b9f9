"""What to try next, after what was found of a run: settings to change, each with the reason.

Leaves out what was found (`rl.findings`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from utils.core.check import Check

if TYPE_CHECKING:
    from utils.rl.recipe import PPORecipe

NAME = "What to try next"


def next_steps(checks: Sequence[Check], recipe: PPORecipe) -> Check:
    """Advice for each finding that falls short, and one piece that is always good."""
    status = {check.name: check.status for check in checks}
    ppo, found = recipe.ppo, []
    if status.get("pass@1") != "pass":
        found.append(
            f"pass@1 is not shown to have risen: train for longer (ppo.updates={max(20, 2 * ppo.updates)}), or"
            f" draw more programs a task (ppo.samples={2 * ppo.samples})."
        )
    if status.get("New programs") in ("warn", "fail"):
        found.append(
            "On tasks of new programs nothing is shown to have risen: learn from more of them"
            f" (pool.train={2 * recipe.pool.train})."
        )
    if status.get("Honest programs") == "warn":
        found.append(f"Tricks have spread: let them cost more (reward.trick={2 * min(recipe.reward.trick, -0.1):g}).")
    if status.get("Real ARC tasks") == "warn":
        larger = "scale=full takes a pretrained model" if recipe.policy.kind == "tiny" else "take a larger model"
        found.append(f"No real ARC task was solved, and they are harder than the pool's: {larger}.")
    elif not recipe.evaluation.arc:
        found.append("No real ARC task was tried: evaluation.arc=400 tries some.")
    found.append(f"Another seed tells how much of all this is chance (ppo.seed={ppo.seed + 1}).")
    return Check(NAME, "skip", " ".join(found))
