"""The grids of known factors show their factors, which are independent."""

import math

import numpy as np

from utils.arc.grids import from_canvas, keys
from utils.vae.factors import FACTORS, factor_set


def test_the_factor_set_is_distinct_grids_that_show_their_factors():
    data = factor_set(1000, seed=1)
    assert len(set(keys(data.grids))) == len(set(map(tuple, data.factors.tolist())))
    for canvas, drawn in zip(data.grids[:100], data.factors):
        value = {name: FACTORS[name][at] for name, at in zip(data.names, drawn)}
        grid = from_canvas(canvas)
        assert grid.shape == (value["height"], value["width"])
        assert set(np.unique(grid)) == {value["background"], value["colour"]}
        rows, columns = np.nonzero(grid[:-1] == value["colour"])
        assert (rows.min(), columns.min()) == (value["row"], value["column"])
        assert len(rows) == value["size"] ** 2
        assert (grid[-1] == value["colour"]).sum() == value["count"]


def test_the_factor_set_is_a_function_of_its_seed_and_its_factors_are_independent():
    one, two, other = factor_set(4000), factor_set(4000), factor_set(4000, seed=1)
    assert (one.grids == two.grids).all()
    assert (one.grids != other.grids).any()
    correlation = np.corrcoef(one.factors.T) - np.eye(len(FACTORS))
    assert np.abs(correlation).max() < 4 / math.sqrt(4000)
