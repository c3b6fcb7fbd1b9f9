"""Prompts: what they show and never show, and how they are made to fit."""

from functools import partial

import numpy as np
import pytest

from utils.arc.prompts import PromptError, fit_prompt, write_chat, write_prompt
from utils.arc.tasks import Pair, Task
from utils.arc.text import FORMATS, from_text, to_text


def pair(height, width, colour):
    return Pair(np.full((height, width), colour, np.uint8), np.full((width, height), colour + 1, np.uint8))


TASK = Task("t", (pair(2, 3, 1), pair(4, 5, 3), pair(1, 2, 5)), (pair(1, 3, 7), pair(2, 2, 8)), "made")


def length(content):
    """A character is a token; a message adds ten, as a chat template's marks would."""
    return len(content) if isinstance(content, str) else sum(10 + len(message["content"]) for message in content)


@pytest.mark.parametrize("format", FORMATS)
def test_the_grids_of_the_train_pairs_can_be_read_off_the_prompt(format):
    text = write_prompt(TASK.train, format=format)
    parts = [part.removesuffix("\n") for half in text.split("input\n") for part in half.split("output\n")]
    grids = [from_text(part, format) for part in parts if part]
    expected = [grid for pair in TASK.train for grid in (pair.input, pair.output)]
    assert [grid.tolist() for grid in grids] == [grid.tolist() for grid in expected]


def test_the_prompt_reads_as_documented():
    two = [Pair(np.array([[1, 2]]), np.array([[2], [1]]))]
    assert write_prompt(two, [np.array([[3]])]) == "input\n12\noutput\n2\n1\ninput\n3\n"


@pytest.mark.parametrize("write", [write_prompt, write_chat])
@pytest.mark.parametrize("format", FORMATS)
def test_no_test_pair_changes_the_prompt_and_no_test_output_where_inputs_are_asked_for(write, format):
    """A function of what it is given: what changes nothing is not shown."""
    noise = np.random.default_rng(0).integers(10, size=(4, 4), dtype=np.uint8)
    others = {"outputs": [Pair(own.input, noise) for own in TASK.test], "all": [Pair(noise, noise)]}
    tasks = {name: Task("t", TASK.train, tuple(test), "made") for name, test in others.items()}
    fit = partial(fit_prompt, tokenizer_len=length, budget=10_000, format=format, write=write)
    assert fit(TASK) == fit(tasks["outputs"]) == fit(tasks["all"])
    assert fit(TASK, test_inputs=True) == fit(tasks["outputs"], test_inputs=True)
    shown = fit(TASK, test_inputs=True).content
    assert shown != fit(tasks["all"], test_inputs=True).content
    text = shown if isinstance(shown, str) else shown[1]["content"]
    assert all(to_text(own.input, format) in text for own in TASK.test)
    assert not any(to_text(own.output, format) in text for own in TASK.test[:1])  # 888 in a column, shown nowhere


def test_a_chat_asks_for_solve_and_explains_the_format_and_the_functions():
    def turn(grid: list, times: int = 1) -> list:
        """Turn the grid.

        More than a line.
        """

    system, user = write_chat(TASK.train, [TASK.test[0].input], "compact", functions={"turn": turn})
    assert (system["role"], user["role"]) == ("system", "user")
    assert "solve(grid)" in system["content"]
    assert 'Rows are parted by "/"' in system["content"]
    assert "\nturn(grid, times=1): Turn the grid.\n" in system["content"] + "\n"
    assert "More than" not in system["content"]
    assert "to be called" not in write_chat(TASK.train)[0]["content"]
    assert [f"Example {number}\n" in user["content"] for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert "Test input 1" in user["content"]


def test_a_prompt_that_fits_is_whole():
    whole = write_prompt(TASK.train)
    found = fit_prompt(TASK, length, len(whole))
    assert (found.content, found.tokens, found.kept, found.dropped) == (whole, len(whole), (0, 1, 2), ())
    assert str(found) == f"Task t: {len(whole)} tokens, 3 of 3 train pairs."


def test_the_largest_pairs_are_dropped_first_until_it_fits_and_said_to_be():
    """A pair takes 13 characters for its marks and h(w + 1) + w(h + 1) for its grids: 13 + 17, 13 + 49, 13 + 7."""
    assert [length(write_prompt([own])) for own in TASK.train] == [30, 62, 20]
    found = fit_prompt(TASK, length, 111)
    assert (found.kept, found.dropped, found.tokens) == ((0, 2), (1,), 50)
    assert found.content == write_prompt([TASK.train[0], TASK.train[2]])
    assert fit_prompt(TASK, length, 49).dropped == (1, 0)
    assert str(fit_prompt(TASK, length, 20)) == "Task t: 20 tokens, 1 of 3 train pairs; dropped 1, 0."


def test_of_equal_pairs_the_later_is_dropped_first():
    task = Task("t", (pair(2, 3, 1), pair(3, 2, 3), pair(2, 3, 5)), TASK.test, "made")
    assert fit_prompt(task, length, 60).dropped == (2,)


def test_what_is_dropped_depends_on_the_tokens_and_not_on_the_characters():
    """With a tokenizer for which a 5 is dear, the smallest pair goes first."""
    assert fit_prompt(TASK, lambda text: len(text) + 100 * text.count("5"), 200).dropped == (2,)


def test_one_pair_too_long_says_by_how_much_and_what_to_do():
    with pytest.raises(PromptError, match="Task t: 1 of 3 train pairs are 20 tokens and the budget is 19; give .* 20,"):
        fit_prompt(TASK, length, 19)
    with pytest.raises(PromptError, match="3 of 3 train pairs are 112 tokens .* 112, or .*compact.* or truncate=True"):
        fit_prompt(TASK, length, 111, truncate=False)
    one = Task("t", TASK.train[:1], TASK.test, "made")
    with pytest.raises(PromptError, match=r"1 of 1 train pairs and 2 test inputs .* or try no test inputs\.$"):
        fit_prompt(one, length, 30, test_inputs=True, format="compact", truncate=False)
    with pytest.raises(PromptError, match="A budget of 0 tokens"):
        fit_prompt(TASK, length, 0)


def test_a_chat_is_made_to_fit_by_the_length_of_its_messages():
    whole = length(write_chat(TASK.train))
    found = fit_prompt(TASK, length, whole - 1, write=write_chat)
    assert found.dropped == (1,)
    assert found.content == write_chat([TASK.train[0], TASK.train[2]])
    assert found.tokens == length(found.content)


def test_a_prompt_is_read_as_its_text_and_a_chat_message_by_message():
    plain = fit_prompt(TASK, length, 1000)
    assert plain.text == plain.content
    chat = fit_prompt(TASK, length, 100000, write=write_chat)
    system, user = chat.content
    assert chat.text == f"[system]\n{system['content']}\n\n[user]\n{user['content']}"
