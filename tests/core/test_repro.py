"""Seeds and the state of the generators."""

import hashlib
import random
import struct
import zlib

import numpy
import pytest
import torch

from utils.core import repro


@pytest.fixture(autouse=True)
def untouched():
    with repro.preserved_rng():
        yield
    torch.use_deterministic_algorithms(False)


def draw():
    """Some of each generator; three normals leave one cached in numpy's and python's."""
    return (
        [random.gauss(0, 1) for _ in range(3)],
        numpy.random.standard_normal(3).tolist(),
        torch.randn(3).tolist(),
        torch.nn.functional.dropout(torch.ones(8)).tolist(),
    )


def test_equal_seeds_draw_equal_numbers_from_every_generator():
    first, second, other = [], [], []
    for seed, draws in ((3, first), (3, second), (4, other)):
        repro.seed_everything(seed)
        draws.extend(draw())
    assert first == second
    assert all(one != two for one, two in zip(first[:3], other[:3]))


def test_the_state_goes_through_a_checkpoint(tmp_path):
    repro.seed_everything(5)
    draw()
    torch.save(repro.rng_state(), tmp_path / "state.pt")
    expected = draw()
    repro.seed_everything(6)
    repro.set_rng_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == expected


def test_what_is_drawn_inside_changes_nothing_outside():
    repro.seed_everything(5)
    expected = draw()
    repro.seed_everything(5)
    with repro.preserved_rng():
        repro.seed_everything(9)
        draw()
    assert draw() == expected
    repro.seed_everything(5)
    with pytest.raises(ZeroDivisionError), repro.preserved_rng():
        raise ZeroDivisionError(draw())
    assert draw() == expected


def test_data_workers_draw_by_the_seed():
    def batches(seed):
        repro.seed_everything(seed)
        loader = torch.utils.data.DataLoader(Noise(), num_workers=1, multiprocessing_context="fork")
        return torch.cat(list(loader)).tolist()

    assert batches(1) == batches(1) != batches(2)


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.rand(1)


def test_deterministic_mode_is_switched_on_and_off():
    repro.seed_everything(1, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    repro.seed_everything(1)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_environment_names_its_packages_and_hashes_them():
    whole, short = repro.environment(), repro.environment(packages=False)
    assert f"torch=={torch.__version__}".lower() in whole["packages"]
    assert whole["packages"] == sorted(set(whole["packages"]))
    assert whole["env_hash"] == short["env_hash"]
    assert "packages" not in short
    if torch.cuda.is_available():
        assert len(whole["devices"]["gpu"]) == torch.cuda.device_count()
        assert whole["devices"]["driver"]


@pytest.fixture
def checkout(tmp_path):
    """A git checkout of one committed file, written by hand: (folder, commit).

    The formats are those of gitformat-index(5) and of the "Git Internals" chapter of Pro Git.
    """
    folder, content = tmp_path / "checkout", b"one\ntwo\n"
    git = folder / ".git"
    for name in ("objects", "refs/heads"):
        (git / name).mkdir(parents=True)

    def put(kind, data):
        data = f"{kind} {len(data)}".encode() + b"\0" + data
        name = hashlib.sha1(data).hexdigest()
        (git / "objects" / name[:2]).mkdir(exist_ok=True)
        (git / "objects" / name[:2] / name[2:]).write_bytes(zlib.compress(data))
        return name

    blob = put("blob", content)
    tree = put("tree", b"100644 a.txt\0" + bytes.fromhex(blob))
    who = "A <a@example.org> 1700000000 +0000"
    commit = put("commit", f"tree {tree}\nauthor {who}\ncommitter {who}\n\nfirst\n".encode())
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs/heads/main").write_text(f"{commit}\n")
    (git / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
    entry = struct.pack(">10I", 0, 0, 0, 0, 0, 0, 0o100644, 0, 0, len(content)) + bytes.fromhex(blob)
    entry += struct.pack(">H", len("a.txt")) + b"a.txt"
    entry += b"\0" * (8 - len(entry) % 8)
    index = b"DIRC" + struct.pack(">2I", 2, 1) + entry
    (git / "index").write_bytes(index + hashlib.sha1(index).digest())
    (folder / "a.txt").write_bytes(content)
    return folder, commit


def test_a_clean_checkout_has_no_changes(checkout):
    folder, commit = checkout
    assert repro.git_facts(folder) == {"commit": commit, "dirty": False}
    assert repro.changes(folder=folder) is None


def test_changes_are_told_as_a_diff_and_the_names_of_new_files(checkout):
    folder, commit = checkout
    (folder / "a.txt").write_text("one\nthree\n")
    (folder / "new file.txt").write_text("new\n")
    text = repro.changes(folder=folder)
    assert text.startswith("# new file, not in the diff: ")
    assert "new file.txt" in text.split("\n")[0]
    assert [line for line in text.split("\n") if line[:1] in "+-" and line[1:2].isalpha()] == ["-two", "+three"]
    facts = repro.git_facts(folder)
    assert (facts["commit"], facts["dirty"]) == (commit, True)
    (folder / "a.txt").write_text("one\nfour\n")
    assert repro.git_facts(folder)["changes"] != facts["changes"]
    (folder / "a.txt").write_text("one\nthree\n")
    assert repro.git_facts(folder)["changes"] == facts["changes"]


def test_looking_at_a_checkout_leaves_its_index_alone(checkout):
    folder, _ = checkout
    before = (folder / ".git" / "index").read_bytes()
    repro.changes(folder=folder)
    assert (folder / ".git" / "index").read_bytes() == before


def test_secrets_are_not_in_the_changes_and_long_ones_are_cut_short(checkout, monkeypatch, tmp_path):
    folder, _ = checkout
    monkeypatch.setenv("SOME_API_KEY", "s3cret-of-the-test")
    (folder / "a.txt").write_text("key = s3cret-of-the-test\n" + "x" * 5000 + "\n")
    text = repro.changes(folder=folder)
    assert "s3cret" not in text
    assert "+key = ***" in text
    short = repro.changes(folder=folder, limit=300)
    assert short == text[:300] + f"\n# {len(text) - 300:,} more characters are left out\n"
    path = repro.save_changes(tmp_path, folder=folder)
    assert path.read_text() == text
    assert path.parent == tmp_path


def test_outside_git_there_is_nothing_to_tell(tmp_path):
    assert repro.git_facts(tmp_path) is None
    assert repro.changes(folder=tmp_path) is None
    assert repro.save_changes(tmp_path, folder=tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_the_hash_of_weights_is_that_of_their_names_types_shapes_and_bytes():
    state = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor(3, dtype=torch.int64)}
    expected = b"a torch.int64 ()\n" + struct.pack("<q", 3) + b"b torch.float32 (2,)\n" + struct.pack("<2f", 1, 2)
    assert repro.weights_hash(state) == hashlib.sha256(expected).hexdigest()
    assert repro.weights_hash(dict(reversed(state.items()))) == repro.weights_hash(state)


@pytest.mark.parametrize(
    "other",
    [
        {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).nextafter(torch.tensor(9.0))},
        {"w": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        {"v": torch.tensor([[1.0, 2.0], [3.0, 4.0]])},
        {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16)},
    ],
    ids=["bits", "shape", "name", "type"],
)
def test_the_hash_tells_weights_apart(other):
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert repro.weights_hash(other) != repro.weights_hash({"w": base})
    assert repro.weights_hash({"w": base.T.contiguous().T}) == repro.weights_hash({"w": base})  # laid out otherwise
