"""What PPO adds to its supervised start on tasks it never saw, over seeds, beside a control whose rewards are shuffled.

python benchmarks/ppo.py [--recipe ppo_arc] [--seeds 3] [--root FOLDER] [key=value ...]

A seed is of the warm start and of PPO; the tasks are the recipe's. The control deals each rollout's scores out at
random among its programs, and must learn nothing: it is trained to the last update, and judged with the weights that it
then has, as the best ones would be those it began with. With a --root a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pandas

from utils.rl.recipes import PPORecipe, load_recipe, train
from utils.rl.report import AFTER, BEFORE, finish, results_of
from utils.training.runs import best_checkpoint

CONTROL = ["ppo.shuffle_rewards=true", "ppo.patience=null"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="ppo_arc")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--root", type=Path, help="where runs are kept; default: a folder that is removed")
    arguments, overrides = parser.parse_known_args()
    plans = {f"seed {seed}": [f"warm_start.seed={seed}", f"ppo.seed={seed}"] for seed in range(arguments.seeds)}
    plans["seed 0, shuffled"] = [*plans["seed 0"], *CONTROL]
    rows = {}
    with nullcontext(arguments.root) if arguments.root else tempfile.TemporaryDirectory() as root:
        for name, plan in plans.items():
            rows[name] = measured(load_recipe(arguments.recipe, [*overrides, *plan]), Path(root))
            print(pandas.DataFrame.from_dict(rows, orient="index").round(1).to_string(), flush=True)


def measured(recipe: PPORecipe, root: Path) -> dict[str, float | str]:
    """Percent of the test tasks before and after, the differences with their intervals, and minutes of this session.

    Of the best weights; of the last ones where rewards are shuffled.
    """
    begun = time.perf_counter()
    result = train(recipe, root)
    trained = time.perf_counter()
    update = result.progress.update if recipe.ppo.shuffle_rewards else best_checkpoint(result.run).step
    finish(result.run, update)
    judged = time.perf_counter()
    content = json.loads((results_of(result.run, update) / "metrics.json").read_text(encoding="utf-8"))
    found = content["results"]
    row: dict[str, float | str] = {"update": content["update"]}
    for metric, gain in found["difference"].items():
        for name in (BEFORE, AFTER):
            row[f"{metric} {name.split()[0]}"] = 100 * found[name]["rates"][metric]["value"]
        row[f"{metric} gain"] = f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    return {**row, "min to train": (trained - begun) / 60, "to judge": (judged - trained) / 60}


if __name__ == "__main__":
    main()
