"""What a policy is told of a task, and its answers: read as programs, and written as what it would have answered."""

from collections.abc import Sequence

import numpy as np
import pytest

from utils.arc.dsl import PRIMITIVES
from utils.arc.programs import generate
from utils.arc.prompts import PromptError
from utils.arc.tasks import Pair, Task
from utils.rl.dialogue import ChatDialogue, PieceDialogue
from utils.rl.vocabulary import HEAD, PieceTokenizer

PIECES = PieceTokenizer(PRIMITIVES)


class Characters:
    """A tokenizer of a chat model: characters, and a mark before what each side says."""

    pad_id, eos_id, vocab_size, banned = 0, 1, 300, (0, 2, 3)

    def encode(self, text: str) -> list[int]:
        return [ord(one) + 4 for one in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(one - 4) for one in ids if one > 3)

    def prompt(self, messages) -> list[int]:
        return [one for message in messages for one in (2, *self.encode(message["content"]))] + [3]


@pytest.fixture(scope="module")
def examples():
    return generate(30, seed=0)


def chat(budget=20000, **options):
    given = {"format": "digits", "functions": {"crop": PRIMITIVES["crop"]}, **options}
    return ChatDialogue(Characters(), budget, **given)


@pytest.mark.parametrize("dialogue", [PieceDialogue(PIECES, 20000), chat()], ids=["pieces", "chat"])
def test_the_answer_that_is_a_program_is_read_as_that_program(dialogue, examples):
    for example in examples:
        answer = dialogue.answer(example.program)
        assert answer[-1] == dialogue.tokenizer.eos_id
        assert dialogue.tokenizer.eos_id not in answer[:-1]
        assert not set(answer) & set(dialogue.tokenizer.banned)
        assert dialogue.read(dialogue.tokenizer.decode(answer)).strip() == example.program.strip()


def test_a_prompt_of_pieces_is_its_pairs_and_the_first_line_of_a_function(examples):
    dialogue = PieceDialogue(PIECES, 20000)
    for example in examples:
        ids = dialogue.encode(example.task)
        assert len(ids) == dialogue.prompt(example.task).tokens  # the head is one token, and is counted
        grids = [grid for pair in example.task.train for grid in (pair.input, pair.output)]
        cells = [one - PIECES.first_cell for one in ids if PIECES.first_cell <= one < PIECES.row_id]
        assert cells == [cell for grid in grids for cell in grid.flatten().tolist()]
        assert PIECES.decode(ids[-1:]) == HEAD


@pytest.mark.parametrize("dialogue", [PieceDialogue(PIECES, 20000), chat()], ids=["pieces", "chat"])
def test_a_prompt_tells_nothing_of_the_test_pairs(dialogue, examples):
    for example in examples[:5]:
        task = example.task
        other = Task(task.id, task.train, tuple(Pair(pair.output, pair.input) for pair in task.test), task.source)
        assert dialogue.encode(task) == dialogue.encode(other)


def test_pairs_are_dropped_to_fit_the_budget_and_one_that_is_too_large_is_refused(examples):
    task = examples[0].task
    whole = PieceDialogue(PIECES, 20000).prompt(task).tokens
    tight = PieceDialogue(PIECES, whole - 1)
    assert len(tight.encode(task)) < whole
    assert len(tight.prompt(task).dropped) == 1
    with pytest.raises(PromptError, match="the budget is 5"):
        PieceDialogue(PIECES, 5).encode(task)


def test_a_chat_names_the_functions_and_shows_the_grids():
    task = Task("t", (Pair(np.array([[1, 2]], np.uint8), np.array([[3]], np.uint8)),), (), "made up")
    system, user = chat().prompt(task).content
    assert "crop(grid)" in system["content"]
    assert "Input:\n12\n\nOutput:\n3" in user["content"]
    assert "size 1x2" in chat(format="objects").prompt(task).content[1]["content"]
    assert len(chat().encode(task)) == chat().prompt(task).tokens


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("def solve(grid):\n    return grid\n", "def solve(grid):\n    return grid\n"),
        ("Here it is:\n```python\na = 1\n```\nDone.", "a = 1\n"),
        ("```py\na = 1\n```", "a = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("```python\na = 1\n```\nBetter:\n```python\nb = 2\n```", "b = 2\n"),
        ("```python\na = 1\n", "a = 1\n"),  # cut off
        ("", ""),
    ],
)
def test_a_chats_program_is_its_last_block_of_code_or_all_there_is(text, program):
    assert chat().read(text) == program


def test_a_program_that_does_not_begin_as_the_prompt_ends_is_refused():
    with pytest.raises(ValueError, match="does not begin with"):
        PieceDialogue(PIECES, 100).answer("def other(grid):\n    return grid\n")
