"""What moves in a notebook is still where it cannot move."""

import importlib.util

import numpy as np
import pytest

from utils.arc.grids import GridError, from_canvas
from utils.vae import live
from utils.vae.explore import ends, traverse
from utils.vae.live import decoded_at, drawn, live_curves, slide_latents, standing

pytestmark = pytest.mark.usefixtures("one_thread")


def test_outside_a_notebook_the_live_curves_are_a_line_of_text(vae_trained):
    last = vae_trained.run.metrics().iloc[-1]
    line = live_curves(vae_trained.run)(vae_trained.model, 14)
    assert line == standing(vae_trained.run)
    assert f"{last['validation/non_padding']:.1%} of the cells inside" in line


def test_a_slider_decodes_what_a_traversal_shows(vae_trained):
    canvas = vae_trained.data().validation.grids[0]
    moved = traverse(vae_trained.model, canvas, count=2, steps=3)
    for line, dimension, values in zip(moved.canvases, moved.dimensions, moved.values):
        for picture, value in zip(line, values):
            assert np.array_equal(decoded_at(vae_trained.model, canvas, {dimension: value}), from_canvas(picture))


def test_without_ipywidgets_there_is_a_picture(vae_trained, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else find(name))
    figure = slide_latents(vae_trained.model, vae_trained.data().validation, count=2)
    assert len(figure.axes) == 2 * 9  # the grid, what it decodes to, and seven values of each


def test_sliders_are_as_many_as_asked_for_start_at_the_mean_and_decode_where_they_are_moved_to(
    vae_trained, monkeypatch
):
    split, decoded = vae_trained.data().validation, []
    monkeypatch.setattr(live, "decoded_at", lambda *asked: decoded.append(asked[2]) or decoded_at(*asked))
    *sliders, output = slide_latents(vae_trained.model, split, count=3).children
    assert [type(child).__name__ for child in (*sliders, output)] == ["FloatSlider"] * 3 + ["Output"]
    moved = traverse(vae_trained.model, split.grids[0], count=3)
    assert [slider.description for slider in sliders] == moved.labels
    assert [slider.value for slider in sliders] == moved.own.tolist()
    assert [(slider.min, slider.max) for slider in sliders] == [ends(own) for own in moved.own.tolist()]
    sliders[1].value = -3.0
    expected = dict(zip(moved.dimensions, moved.own.tolist()))
    assert decoded == [expected, expected | {moved.dimensions[1]: -3.0}]


def test_a_typed_grid_is_a_split_of_one():
    split = drawn("012 345")
    assert len(split) == 1
    assert np.array_equal(from_canvas(split.grids[0]), [[0, 1, 2], [3, 4, 5]])


def test_a_drawing_that_is_no_grid_is_refused_by_the_name_of_its_field_and_none_is_none():
    with pytest.raises(GridError, match=r"^drawing: 'x' at row 1.*leave it empty"):
        drawn("012 34x")
    assert drawn("  ") is None
