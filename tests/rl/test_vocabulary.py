"""The tiny policy's vocabulary: every text comes back, grids and programs are told apart."""

from __future__ import annotations

import string

import numpy as np
import pytest

from utils.arc.dsl import PRIMITIVES
from utils.arc.programs import ProgramsConfig, generate_task
from utils.arc.prompts import write_prompt
from utils.rl.vocabulary import CELLS, HEAD, PieceTokenizer

PIECES = PieceTokenizer(PRIMITIVES)
PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " \n"
PROGRAM = "def solve(grid):\n    grid = crop(grid)\n    grid = recolour(grid, 3, 5)\n    return flip_rows(grid)\n"


def told(ids) -> list[str]:
    return [PIECES.texts[one] for one in ids]


@pytest.mark.parametrize("seed", range(20))
def test_any_printable_text_comes_back(seed):
    rng = np.random.default_rng(seed)
    pieces = [*PRINTABLE, *PRIMITIVES, "input\n", "output\n", HEAD, "    grid = ", "(grid, ", "007\n", "\n42\n"]
    text = "".join(rng.choice(pieces, 300))
    assert PIECES.decode(PIECES.encode(text)) == text


@pytest.mark.parametrize("text", ["", "\n", "0", "0\n", "input", "input\n", "\n\n7\n", PRINTABLE, "input\ninput\n3"])
def test_texts_at_the_edges_come_back(text):
    assert PIECES.decode(PIECES.encode(text)) == text


def test_generated_programs_and_their_prompts_come_back_and_no_program_holds_a_banned_id():
    rng, banned = np.random.default_rng(0), set(PIECES.banned)
    for _ in range(30):
        example = generate_task(rng, ProgramsConfig())
        ids = PIECES.encode(example.program)
        assert PIECES.decode(ids) == example.program
        assert not banned & set(ids)
        prompt = write_prompt(example.task.train)
        assert PIECES.decode(PIECES.encode(prompt)) == prompt
        assert PIECES.encode(prompt + example.program) == PIECES.encode(prompt) + ids  # no token spans the two


def test_a_program_is_made_of_names_and_the_text_around_them():
    names = ("crop", "recolour", "flip_rows")
    ids = PieceTokenizer(names).encode(PROGRAM)
    pieces = [PieceTokenizer(names).texts[one] for one in ids]
    assert pieces == [
        HEAD, "    grid = ", "crop", "(grid)\n", "    grid = ", "recolour", "(grid, ", "3", ", ", "5", ")\n",
        "    return ", "flip_rows", "(grid)\n",
    ]  # fmt: skip


def test_a_digit_of_a_program_is_another_token_than_a_cell():
    prompt, program = PIECES.encode("input\n35\n"), PIECES.encode("(grid, 3, 5)\n")
    cells = {PIECES.first_cell + 3, PIECES.first_cell + 5}
    assert cells <= set(prompt)
    assert not cells & set(program)
    assert told(prompt) == ["input\n", "3", "5", "\n"]
    assert told(program) == ["(grid, ", "3", ", ", "5", ")\n"]


def test_a_name_within_a_longer_word_is_spelled():
    pieces = PieceTokenizer(["crop", "crop_to"])
    cases = {"crop": ["crop"], "crops": list("crops"), "_crop": list("_crop"), "crop_to(": ["crop_to", "("]}
    for text, expected in cases.items():
        assert [pieces.texts[one] for one in pieces.encode(text)] == expected


def test_marks_and_cells_count_at_the_start_of_a_line_only():
    assert not set(PIECES.mark_ids) & set(PIECES.encode("the input\n an output\n"))
    assert all(one > PIECES.mark_ids[-1] for one in PIECES.encode("x 12\n12 \n"))


def test_padding_start_and_end_are_no_text_and_the_end_alone_can_be_drawn():
    assert PIECES.decode([PIECES.pad_id, PIECES.bos_id, *PIECES.encode("crop"), PIECES.eos_id]) == "crop"
    assert PIECES.eos_id not in PIECES.banned
    assert len({PIECES.pad_id, PIECES.bos_id, PIECES.eos_id}) == 3
    grid = {*range(PIECES.first_cell, PIECES.first_cell + len(CELLS)), PIECES.row_id, *PIECES.mark_ids}
    assert set(PIECES.banned) == grid | {PIECES.pad_id, PIECES.bos_id}


@pytest.mark.parametrize("text", ["café", "a\tb", "→", "\r\n"])
def test_a_character_outside_printable_ascii_is_refused(text):
    with pytest.raises(ValueError, match="is not in the vocabulary of pieces; expected printable ASCII"):
        PIECES.encode(text)


def test_the_order_of_the_names_does_not_matter_and_another_name_is_another_vocabulary():
    first, same, other = PieceTokenizer(["b", "a"]), PieceTokenizer(["a", "b"]), PieceTokenizer(["a", "c"])
    assert first.encode("a(b)") == same.encode("a(b)")
    assert first.fingerprint == same.fingerprint != other.fingerprint
