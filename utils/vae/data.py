"""Grids on disk and the batches drawn from them.

    <folder>/train.npz  validation.npz  test.npz    as `vae.npz` describes
    <folder>/manifest.json                          what `build_corpus` wrote and the sha256 of each file; may be absent

The order of batches and their augmentation are functions of (seed, epoch), so any position can be taken up again.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.arc.grids import canonical_keys
from utils.data.text import CorpusError
from utils.vae.augment import AugmentConfig, augment
from utils.vae.npz import COLUMNS, load_npz, read_npz
from utils.vae.splits import SPLITS

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"


@dataclass(frozen=True, eq=False)
class GridSplit:
    """Grids as canvases, and what is known of each; a `Split` for `fit`.

    Batches hold `grids` (B, 30, 30) uint8 and `heights`, `widths` (B,) int64. With a seed (training) they come in a
    drawn order and augmented; without one (evaluation) in the order of the rows, as they are.
    """

    grids: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    task_ids: np.ndarray
    """the task a grid is from, or was made from; "" for a procedural one"""
    source: np.ndarray
    """real, augmented, or the kind of a procedural grid"""
    online: AugmentConfig = field(default_factory=lambda: AugmentConfig(d4=False, colours=False))
    """augmentation of batches drawn with a seed"""

    def __len__(self) -> int:
        return len(self.grids)

    def subset(self, rows: np.ndarray | slice) -> GridSplit:
        """The grids at some rows, in their order."""
        return GridSplit(*(column[rows] for column in self.arrays().values()), self.online)

    def spread(self, most: int | None) -> np.ndarray:
        """At most so many rows, evenly spread, in their order; None: all."""
        if most is None or len(self) <= most:
            return np.arange(len(self))
        return np.linspace(0, len(self) - 1, most).round().astype(int)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("grids", *COLUMNS)}

    def num_batches(self, batch_size: int, *, seed: int | None = None, epoch: int = 0) -> int:
        return -(-len(self) // batch_size)

    def batches(
        self, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch from number `start` on; the last may be smaller."""
        order = np.arange(len(self)) if seed is None else np.random.default_rng((seed, epoch)).permutation(len(self))
        for number in range(start, self.num_batches(batch_size)):
            batch = self.batch(order[number * batch_size : (number + 1) * batch_size])
            if seed is not None and not self.online.idle:
                batch = augment(batch, self.online, generator=torch_generator(seed, epoch, number))
            yield batch

    def batch(self, rows: np.ndarray | slice) -> dict[str, Tensor]:
        """Some rows as a batch, unchanged."""
        return {
            "grids": torch.from_numpy(self.grids[rows].copy()),
            "heights": torch.from_numpy(self.heights[rows].astype(np.int64)),
            "widths": torch.from_numpy(self.widths[rows].astype(np.int64)),
        }


def torch_generator(*seed: int) -> torch.Generator:
    """A CPU generator whose state is a function of some whole numbers."""
    state = np.random.SeedSequence(seed).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@dataclass(frozen=True, eq=False)
class GridData:
    """A corpus: its three splits, and what manifest.json says of it."""

    folder: Path
    manifest: dict[str, Any]
    train: GridSplit
    validation: GridSplit
    test: GridSplit

    @property
    def fingerprint(self) -> str:
        """Equal for equal grids in equal splits, augmented alike; a resumed run checks it."""
        return f"{self.manifest['fingerprint']}/{self.train.online.fingerprint()}"

    @property
    def remark(self) -> str:
        """What to know of its splits where no task has a second grid; empty where some has."""
        ids = [task for name in SPLITS for task in getattr(self, name).task_ids[getattr(self, name).source == "real"]]
        if not ids or len(set(ids)) < len(ids):
            return ""
        return (
            "Each grid is a task of its own here, so the splits are by grid, and tasks never seen means grids never"
            " seen, which may be like those of training. Grids that belong together need an array task_ids."
        )

    def _repr_html_(self) -> str:
        kinds = list(dict.fromkeys(kind for split in SPLITS for kind in np.unique(getattr(self, split).source)))
        kinds.sort(key=lambda kind: ("real", "augmented", kind).index(kind))
        head = "".join(f"<th>{html.escape(str(kind))}</th>" for kind in kinds)
        rows = ""
        for name in SPLITS:
            split = getattr(self, name)
            counts = "".join(f"<td>{int((split.source == kind).sum()):,}</td>" for kind in kinds)
            tasks = len(set(split.task_ids.tolist()) - {""})
            rows += f"<tr><td>{name}</td><td>{len(split):,}</td><td>{tasks:,}</td>{counts}</tr>"
        remark = f"<p>{html.escape(self.remark)}</p>" if self.remark else ""
        return f"<table><tr><th>split</th><th>grids</th><th>tasks</th>{head}</tr>{rows}</table>{remark}"

    def __repr__(self) -> str:
        counts = f"grids: {', '.join(f'{name} {len(getattr(self, name)):,}' for name in SPLITS)}; {self.folder}"
        return f"{counts}\n{self.remark}" if self.remark else counts


def open_corpus(folder: str | Path, online: AugmentConfig = AugmentConfig()) -> GridData:
    """The corpus in a folder: one that `build_corpus` left, or three .npz files of one's own.

    `online` is how the batches of the training split are augmented. Raises `CorpusError` for a file that is missing,
    damaged or no such thing, naming file and row.
    """
    folder = Path(folder)
    missing = [f"{name}.npz" for name in SPLITS if not (folder / f"{name}.npz").is_file()]
    if missing:
        raise CorpusError(
            f"{folder} has no {', '.join(missing)}; expected train.npz, validation.npz and test.npz. To split .npz or"
            " task files by task first, give their folder as `source` to build_corpus."
        )
    files = {name: folder / f"{name}.npz" for name in SPLITS}
    if not (folder / MANIFEST).is_file():
        splits = {name: GridSplit(**read_npz(path)) for name, path in files.items()}
        _warn_of_shared(splits)
        manifest = {"source": str(folder), "fingerprint": content_fingerprint(splits)}
        return GridData(folder, manifest, **_with_online(splits, online))
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    for name, path in files.items():
        if hashlib.sha256(path.read_bytes()).hexdigest() != manifest["splits"][name]["sha256"]:
            raise CorpusError(f"{path} is not the file that {MANIFEST} describes; delete {folder} and build it again.")
    splits = {name: GridSplit(**load_npz(path)) for name, path in files.items()}
    return GridData(folder, manifest, **_with_online(splits, online))


def content_fingerprint(splits: Mapping[str, GridSplit]) -> str:
    """12 hex digits of the sha256 of every split's arrays."""
    whole = hashlib.sha256()
    for name in SPLITS:
        for column, array in splits[name].arrays().items():
            # Text by its letters, not its bytes: numpy pads it to the longest.
            data = "\n".join(array.tolist()).encode() if array.dtype.kind == "U" else array.tobytes()
            whole.update(f"{name}/{column} {len(data)}\n".encode() + data)
    return whole.hexdigest()[:12]


def _with_online(splits: Mapping[str, GridSplit], online: AugmentConfig) -> dict[str, GridSplit]:
    return {**splits, "train": GridSplit(*splits["train"].arrays().values(), online)}


def _warn_of_shared(splits: Mapping[str, GridSplit]) -> None:
    seen: set[bytes] = set()
    for name in SPLITS:
        found = canonical_keys(splits[name].grids, splits[name].heights, splits[name].widths)
        shared = sum(key in seen for key in found)
        if shared:
            log.warning(
                "%d of the %d grids of %s equal one of an earlier split, up to turns, mirrors and colours.",
                shared, len(found), name,
            )  # fmt: skip
        seen.update(found)
