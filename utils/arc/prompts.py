"""The prompt of a task: its train pairs as text, for a model that goes on with a program, or for one that chats.

A prompt is made from train pairs, and where asked from the inputs of the test pairs. No test output enters any function
here that writes. Leaves out tokens (a caller counts them) and what the model answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.arc.tasks import Pair, Task
from utils.arc.text import Format, to_text

Messages = list[dict[str, str]]
Write = Callable[[Sequence[Pair], Sequence[np.ndarray], Format], Any]

LEGENDS: dict[str, str] = {
    "digits": "Each line is a row of the grid and each digit is the colour of a cell.",
    "compact": (
        'Rows are parted by "/" and each digit is the colour of a cell. A letter after a digit is the length of a run'
        ' of that colour: c is 3, d is 4, and so on to z, which is 26, then A is 27 to D, which is 30. "*" and a number'
        " after a row say how many equal rows lie below one another there."
    ),
    "objects": (
        "First comes the size as rows x columns and the background colour, then the rows, in which each digit is the"
        " colour of a cell, then the largest objects: regions of one colour whose cells touch by their sides. Rows and"
        " columns are counted from 0."
    ),
}


class PromptError(ValueError):
    """A task whose prompt does not fit the budget; the message says by how much and what to change."""


@dataclass(frozen=True)
class Prompt:
    """What is shown of a task: `content` is a text, or the messages of a chat; `tokens` is its length.

    `kept` and `dropped` are the numbers of its train pairs (from 0); `dropped` in the order in which they went.
    """

    task: str
    content: str | Messages
    tokens: int
    kept: tuple[int, ...]
    dropped: tuple[int, ...]

    @property
    def text(self) -> str:
        """The content to be read by a person: of a chat each message under its role."""
        if isinstance(self.content, str):
            return self.content
        return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in self.content)

    def __str__(self) -> str:
        """`Task 00ab12cd: 900 tokens, 2 of 3 train pairs; dropped 1.`"""
        gone = f"; dropped {', '.join(map(str, self.dropped))}" if self.dropped else ""
        count = len(self.kept) + len(self.dropped)
        return f"Task {self.task}: {self.tokens} tokens, {len(self.kept)} of {count} train pairs{gone}."


def write_prompt(pairs: Sequence[Pair], tests: Sequence[np.ndarray] = (), format: Format = "digits") -> str:
    """Each pair as "input", its grid, "output", its grid; then each test input. Every line ends in a line break."""
    shown = [(name, grid) for pair in pairs for name, grid in (("input", pair.input), ("output", pair.output))]
    shown += [("input", grid) for grid in tests]
    return "".join(f"{name}\n{to_text(grid, format)}\n" for name, grid in shown)


def write_chat(
    pairs: Sequence[Pair],
    tests: Sequence[np.ndarray] = (),
    format: Format = "digits",
    *,
    functions: Mapping[str, Callable] | None = None,
) -> Messages:
    """A system and a user message, as chat templates take them, that ask for a Python function solve(grid).

    `functions` may be called by the answer: their signatures and the first lines of their docstrings are told.
    """
    examples = [
        f"Example {number}\n\nInput:\n{to_text(pair.input, format)}\n\nOutput:\n{to_text(pair.output, format)}"
        for number, pair in enumerate(pairs, 1)
    ]
    examples += [
        f"Test input {number}, whose output is not shown\n\n{to_text(grid, format)}"
        for number, grid in enumerate(tests, 1)
    ]
    rules = [
        "You solve grid puzzles by writing Python. One hidden rule turns every input grid of a puzzle into its output"
        " grid. From examples you find the rule and write it as a function.",
        "A grid has 1 to 30 rows and 1 to 30 columns. A cell is a colour, a whole number from 0 to 9; 0 is black and"
        f" is often the background. {LEGENDS[format]}",
        "Write one function `solve(grid)`. It takes the input grid as a list of rows, each a list of whole numbers,"
        " and returns the output grid in the same form. It will be run on new inputs of the same puzzle, so follow the"
        " rule and do not copy the examples' outputs. Use plain Python: no files, no network, no other packages.",
        *([_told(functions)] if functions else []),
        "Answer with one Python code block that holds the function, and nothing else.",
    ]
    question = "Write `solve(grid)` for the rule that turns each input into its output."
    return [
        {"role": "system", "content": "\n\n".join(rules)},
        {"role": "user", "content": "\n\n".join([*examples, question])},
    ]


def _told(functions: Mapping[str, Callable]) -> str:
    lines = []
    for name, function in functions.items():
        signature = inspect.signature(function)
        bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        call = f"{name}{signature.replace(parameters=bare, return_annotation=signature.empty)}"
        lines.append(": ".join([call, *(inspect.getdoc(function) or "").splitlines()[:1]]))
    return "\n".join(["These functions are there to be called:", *lines])


def fit_prompt(
    task: Task,
    tokenizer_len: Callable[[Any], int],
    budget: int,
    *,
    format: Format = "digits",
    test_inputs: bool = False,
    write: Write = write_prompt,
    truncate: bool = True,
) -> Prompt:
    """The prompt of a task in at most `budget` tokens.

    `tokenizer_len` gives the tokens of what `write` makes: of a text from `write_prompt`, of messages from
    `write_chat` (the chat template's part included, if it counts it). Where the whole is too long, train pairs are
    dropped one by one, the one of most tokens first and of equal ones the later, until it fits; one always stays, and
    the others keep their order. Raises `PromptError` where one is still too long, or with `truncate=False` where all
    are.
    """
    if budget < 1:
        raise PromptError(f"A budget of {budget} tokens holds no prompt; expected at least 1.")
    tests = [pair.input for pair in task.test] if test_inputs else []
    kept = list(range(len(task.train)))

    def written() -> tuple[Any, int]:
        content = write([task.train[number] for number in kept], tests, format)
        return content, tokenizer_len(content)

    content, tokens = written()
    dropped: list[int] = []
    if tokens > budget and truncate:
        sizes = [tokenizer_len(write([pair], [], format)) for pair in task.train]
        while tokens > budget and len(kept) > 1:
            largest = max(kept, key=lambda number: (sizes[number], number))
            kept.remove(largest)
            dropped.append(largest)
            content, tokens = written()
    if tokens > budget:
        shown = f"{len(kept)} of {len(task.train)} train pairs" + (f" and {len(tests)} test inputs" if tests else "")
        hints = ['format="compact"'] * (format != "compact") + ["no test inputs"] * bool(tests)
        hints += ["truncate=True"] * (not truncate and len(kept) > 1)
        raise PromptError(
            f"Task {task.id}: {shown} are {tokens} tokens and the budget is {budget}; give a budget of at least"
            f" {tokens}{', or try ' + ' or '.join(hints) if hints else ''}."
        )
    return Prompt(task.id, content, tokens, tuple(kept), tuple(dropped))
