"""The tiny policy's model: what it is told of a cell, by hand, and that it looks back only."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from utils.arc.grids import COLOURS, OUTSIDE, SIDE
from utils.models.blocks import TransformerConfig
from utils.rl.tiny import PAIRS, PARTS, VIEWS, GridGPT, coordinates, views_of
from utils.rl.vocabulary import HEAD, PieceTokenizer

PIECES = PieceTokenizer(["crop", "flip_rows"])
PROMPT = "input\n12\n34\n50\noutput\n678\n901\n"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GridGPT(
        TransformerConfig(vocab_size=PIECES.vocab_size, context_length=2000, num_layers=2, num_heads=4, width=32)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([PIECES.encode(text)])


def test_coordinates_of_a_prompt_by_hand():
    #           mark  1 2 \n  3 4 \n  5 0 \n  mark  6 7 8 \n  9 0 1 \n  HEAD
    rows_ = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0]
    columns = [0, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 3, 0, 1, 2, 3, 0]
    parts = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    inside = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    found = coordinates(ids_of(PROMPT + HEAD))
    assert [one[0].long().tolist() for one in found] == [rows_, columns, parts, inside]


@pytest.mark.parametrize("pads", [1, 7, 31])
def test_padding_on_the_left_moves_no_cell(model, pads):
    ids = ids_of(PROMPT + HEAD)
    padded = torch.cat((torch.full((1, pads), PIECES.pad_id), ids), dim=1)
    for bare, moved in zip(coordinates(ids), coordinates(padded)):
        assert torch.equal(bare[0], moved[0, pads:])
    with torch.no_grad():
        assert torch.equal(model.embed(padded)[:, pads:], model.embed(ids))


def test_an_output_is_compared_with_the_eight_views_of_its_input():
    rng = np.random.default_rng(0)
    given, made = rng.integers(0, 10, (3, 2)), rng.integers(0, 10, (2, 4))
    text = "".join(f"{name}\n" + "".join(f"{''.join(map(str, row))}\n" for row in grid) for name, grid in
                   (("input", given), ("output", made)))  # fmt: skip
    ids = ids_of(text)
    numbers = views_of(ids, *coordinates(ids))[0]
    start, nothing = PIECES.encode(text).index(PIECES.mark_ids[1]) + 1, VIEWS * PAIRS
    assert (numbers[:start] == nothing).all()
    # numpy's turns and mirrors of the input, laid over the output from its first cell on
    views = {np.rot90(side, turn).tobytes(): np.rot90(side, turn) for side in (given, given.T) for turn in range(4)}
    assert len(views) == VIEWS
    for r in range(2):
        cells = numbers[start + r * 5 : start + r * 5 + 5]
        assert (cells[4] == nothing).all()  # the end of the row
        for c in range(4):
            there = [int(view[r, c]) if r < view.shape[0] and c < view.shape[1] else OUTSIDE for view in views.values()]
            told = [int(number) % PAIRS for number in cells[c]]
            assert [int(number) // PAIRS for number in cells[c]] == list(range(VIEWS))
            assert sorted(told) == sorted(colour * COLOURS + int(made[r, c]) for colour in there)


@torch.no_grad()
def test_no_token_looks_ahead(model):
    generator = torch.Generator().manual_seed(0)
    ids = ids_of(PROMPT * 3 + HEAD)
    logits = model(ids)
    for place in range(1, ids.shape[1], 5):
        other = ids.clone()
        other[:, place:] = torch.randint(3, PIECES.vocab_size, other[:, place:].shape, generator=generator)
        assert_close(model(other)[:, :place], logits[:, :place], atol=1e-5, rtol=0)
        assert_close(model(ids[:, :place]), logits[:, :place], atol=1e-5, rtol=0)


@torch.no_grad()
def test_where_a_cell_stands_matters(model):
    across, down = ids_of("input\n12\n"), ids_of("input\n1\n2\n")
    plain = model.embedding(across)
    assert not torch.allclose(model.embed(across)[0, 1:3] - plain[0, 1:3], torch.zeros(2, 32))
    assert not torch.allclose(model.embed(across)[0, 2], model.embed(down)[0, 3])  # the 2 beside, and the 2 below
    assert torch.equal(model.embed(across)[0, 0], plain[0, 0])  # a mark is no cell


@torch.no_grad()
def test_the_largest_grids_and_more_of_them_than_are_told_apart_are_read(model):
    largest = "input\n" + ("7" * SIDE + "\n") * SIDE
    row, column, _, _ = coordinates(ids_of(largest))
    assert (int(row.max()), int(column.max())) == (SIDE - 1, SIDE)
    many = ids_of("input\n1\noutput\n2\n" * PARTS)
    assert int(coordinates(many)[2].max()) == PARTS - 1
    assert model(many).isfinite().all()
    assert model(ids_of(largest)).isfinite().all()


@torch.no_grad()
def test_the_embeddings_of_programs_are_the_tokens_alone(model):
    ids = ids_of(HEAD + "    return crop(grid)\n")
    assert torch.equal(model.embed(ids), model.embedding(ids))
