"""The corpus of the beta-VAE at full size: how long it takes, and whether it is what it says.

    python benchmarks/corpus.py [--recipe vae] [corpus.total=20000 ...]

Builds it twice, in two processes with other hash seeds, and checks that both have the same bytes, that every grid is
there once, and that no task and no canonical grid (up to turns, mirrors and colours) is in two splits. Exits with 1
where one of these does not hold.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

from utils.arc.grids import canonical_keys, keys
from utils.vae.data import GridData, open_corpus
from utils.vae.recipes import VAERecipe, load_recipe, prepare
from utils.vae.splits import SPLITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="settings to change, such as corpus.total=20000")
    parser.add_argument("--recipe", default="vae")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    with tempfile.TemporaryDirectory() as root:
        builds = [build_in_a_process(recipe, Path(root) / str(number), number) for number in (1, 2)]
        for seconds, folder in builds:
            print(f"built in {seconds:.1f} s: {sum(file.stat().st_size for file in folder.iterdir()) / 2**20:.1f} MiB")
        first, second = (open_corpus(folder) for _, folder in builds)
        faults = list(faults_of(recipe, first, second))
    print("\n".join(faults) or "the same bytes twice; every grid once; no task and no canonical grid in two splits")
    sys.exit(bool(faults))


def build_in_a_process(recipe: VAERecipe, root: Path, hash_seed: int) -> tuple[float, Path]:
    """Seconds of the build, without starting Python, and the folder it left."""
    os.environ["PYTHONHASHSEED"] = str(hash_seed)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(build, (recipe, root))


def build(recipe: VAERecipe, root: Path) -> tuple[float, Path]:
    start = time.perf_counter()
    folder = prepare(recipe, root).folder
    return time.perf_counter() - start, folder


def faults_of(recipe: VAERecipe, first: GridData, second: GridData) -> Iterable[str]:
    """What does not hold, a line each; and, printed, what is in each split."""
    known, forms, tasks = [], {}, {}
    for name in SPLITS:
        split, facts = getattr(first, name), first.manifest["splits"][name]
        print(f"{name:10s} {len(split):7,} grids, {facts['tasks']:5,} tasks, sha256 {facts['sha256']}")
        if second.manifest["splits"][name]["sha256"] != facts["sha256"]:
            yield f"{name} has other bytes the second time"
        known += keys(split.grids)
        forms[name] = set(canonical_keys(split.grids, split.heights, split.widths))
        tasks[name] = set(split.task_ids.tolist()) - {""}
    if not len(known) == len(set(known)) == recipe.corpus.total:
        yield f"{len(known):,} grids, {len(set(known)):,} of them distinct; expected {recipe.corpus.total:,}"
    for one, other in combinations(SPLITS, 2):
        for what, found in (("canonical grids", forms), ("tasks", tasks)):
            if found[one] & found[other]:
                yield f"{len(found[one] & found[other]):,} {what} are in {one} and in {other}"


if __name__ == "__main__":
    main()
