"""A process of a search: `python search_child.py ROOT TRIALS [hang | slow]`; `hang` never ends trial 2."""

import sys
import time
from pathlib import Path

from utils.core.config import Config
from utils.experiments.search import SearchConfig, search


class Point(Config):
    """A point."""

    x: float = 0.0
    """where"""


def run_one(config, watch):
    mode = sys.argv[3] if len(sys.argv) > 3 else ""
    watch(1, {"loss": config.x**2 + 1})
    if mode == "hang" and watch.name.endswith("002"):
        Path(sys.argv[1], "hanging").write_text(str(config.x))
        time.sleep(600)
    if mode == "slow":
        time.sleep(0.2)
    return {"loss": config.x**2}


if __name__ == "__main__":
    settings = {"trials": int(sys.argv[2]), "pruner": "none", "space": {"x": {"float": [-1, 1]}}}
    print(search(Point(), SearchConfig(**settings), run_one, Path(sys.argv[1])))
