"""`Judgement`: what was found of a run, before and after PPO, beside baselines and on real ARC tasks.

Leaves out how each number comes about (`rl.evaluate`) and what is written of it (`rl.report`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.core.device import choose, make_fabric
from utils.rl.arc_tasks import ArcTasks, arc_problems
from utils.rl.baselines import evaluate_baselines
from utils.rl.estimates import most_likely
from utils.rl.evaluate import evaluate_policy
from utils.rl.evaluation import Evaluation, as_json, paired
from utils.rl.policy import CodePolicy
from utils.rl.recipes import Trained, build
from utils.rl.reference import put_back_start
from utils.rl.rollout import Problem
from utils.rl.sandbox import Sandbox

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BEFORE, AFTER = "before PPO", "after PPO"


@dataclass(frozen=True)
class Judgement:
    """Everything that was found: on test tasks before and after PPO and of the baselines, and on real ARC tasks."""

    problems: list[Problem]
    """the test tasks, as far as they were judged"""
    before: Evaluation
    after: Evaluation
    baselines: dict[str, Evaluation]
    sandbox: dict[str, str]
    """ACTIVE, MISSING or NOT NEEDED of every layer that programs ran in"""
    arc_tasks: ArcTasks | None = None
    arc: dict[str, Evaluation] | None = None
    """before and after; None where none was tried"""

    @property
    def policies(self) -> dict[str, Evaluation]:
        return {BEFORE: self.before, AFTER: self.after}

    @property
    def all(self) -> dict[str, Evaluation]:
        return {**self.policies, **self.baselines}

    @property
    def arc_sentence(self) -> str:
        if self.arc_tasks is None:
            return "No real ARC task was tried: the recipe's evaluation.arc is 0."
        if not self.arc:
            return f"No real ARC task was tried: {self.arc_tasks}."
        found = [f"{one.solved_by_any} {name}" for name, one in self.arc.items()]
        tried, one = len(self.arc_tasks.problems), next(iter(self.arc.values()))
        drawn = one.records[0].samples
        kinds = f"{drawn} drawn" + f", {one.programs_a_task - drawn} greedy" * (one.programs_a_task > drawn)
        text = f"Tried, without any training on them: {self.arc_tasks}. Tasks of which at least one of"
        text += f" {one.programs_a_task} programs ({kinds}) passed the hidden pairs: {', '.join(found)}; which program,"
        text += " nobody could have known beforehand."
        if not any(one.solved_by_any for one in self.arc.values()):
            text += f" With none of {tried} solved, a rate of up to {most_likely(tried):.1%} is not ruled out (95%)."
        return text

    def content(self) -> dict[str, Any]:
        """Counts, rates with intervals and differences, as JSON values."""
        changes = {metric: paired(self.before, self.after, metric) for metric in self.after.metrics}
        parts = {
            str(key): {metric: paired(part, self.after.by_seen[key], metric) for metric in part.metrics}
            for key, part in self.before.by_seen.items()
        }
        arc = self.arc_tasks and {
            "tasks": self.arc_tasks.total,
            "fitting": self.arc_tasks.fitting,
            "tried": len(self.arc_tasks.problems),
            **{name: one.content() for name, one in (self.arc or {}).items()},
        }
        return {
            **{name: one.content() for name, one in self.policies.items()},
            "baselines": {name: one.content() for name, one in self.baselines.items()},
            "difference": as_json(changes),
            "difference_by_seen": as_json(parts),
            "arc": arc,
        }


def start_policy(trained: Trained) -> CodePolicy:
    """The policy as PPO took it up: with the weights that its run keeps of its beginning, as its reference.

    Raises `RunError` where they are gone.
    """
    policy = build(trained.recipe)
    put_back_start(policy, trained.run)
    return policy.eval()


def judge(trained: Trained, before: CodePolicy, sandbox: Sandbox, *, fabric: Fabric | None = None) -> Judgement:
    """Evaluate the policies before and after PPO, and the baselines, on the test tasks; and on real ARC tasks.

    The policies move to `fabric`'s device, whose processes share the tasks; without one, to the recipe's.
    """
    recipe, setting = trained.recipe, trained.setting
    fabric = fabric or make_fabric(choose(recipe.ppo.device, recipe.ppo.precision))
    config, pool = recipe.evaluation, setting.pool
    problems = list(setting.test[: config.tasks])
    seen = [pool.has_seen(example) for example in pool.test[: config.tasks]]
    common = {"sandbox": sandbox, "reward": recipe.reward, "config": config}
    arc_tasks = arc_problems(setting.dialogue, config.arc) if config.arc else None
    found, arc = {}, {}
    for name, policy in ((BEFORE, before), (AFTER, trained.policy)):
        policy.to(fabric.device)
        how = {**common, "read": setting.dialogue.read, "sample": recipe.ppo.sample, "name": name, "fabric": fabric}
        found[name] = evaluate_policy(policy, problems, seen=seen, **how)
        if arc_tasks is not None and arc_tasks.problems:
            arc[name] = evaluate_policy(policy, arc_tasks.problems, **{**how, "config": config.replace(tasks=None)})
    baselines = evaluate_baselines(problems, pool.train, seen=seen, fabric=fabric, **common)
    return Judgement(problems, found[BEFORE], found[AFTER], baselines, sandbox.levels, arc_tasks, arc or None)
