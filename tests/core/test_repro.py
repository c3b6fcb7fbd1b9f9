"""Seeds and the state of the generators."""

import random

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
