"""What a policy is told of a task, how its answer is read as a program, and what it would have had to answer.

A model of pieces goes on with a function whose first line it is given; a model that chats is asked for a code block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, Protocol

from utils.arc.prompts import Messages, Prompt, fit_prompt, write_chat
from utils.arc.tasks import Task
from utils.rl.policy import Tokenizer
from utils.rl.vocabulary import HEAD

Format = Literal["digits", "compact", "objects"]


class Dialogue(Protocol):
    """The ways between tasks, ids and programs."""

    tokenizer: Tokenizer

    def prompt(self, task: Task) -> Prompt:
        """What is shown of a task. Raises `PromptError` where not even one of its pairs fits."""

    def encode(self, task: Task) -> list[int]:
        """The ids of its prompt."""

    def read(self, text: str) -> str:
        """The program in an answer's text."""

    def answer(self, program: str) -> list[int]:
        """The ids of the answer that is `program`, its end included."""


class PieceDialogue:
    """For the tiny model: pairs as rows of digits, then the program, whose first line belongs to the prompt."""

    def __init__(self, tokenizer: Tokenizer, budget: int):
        self.tokenizer, self.budget = tokenizer, budget

    def prompt(self, task: Task) -> Prompt:
        return fit_prompt(task, lambda text: len(self.tokenizer.encode(text)) + 1, self.budget)

    def encode(self, task: Task) -> list[int]:
        return list(self.tokenizer.encode(self.prompt(task).content + HEAD))

    def read(self, text: str) -> str:
        return HEAD + text

    def answer(self, program: str) -> list[int]:
        if not program.startswith(HEAD):
            raise ValueError(f"{program[:40]!r} does not begin with {HEAD!r}.")
        return [*self.tokenizer.encode(program.removeprefix(HEAD)), self.tokenizer.eos_id]


class ChatDialogue:
    """For pretrained models: a system and a user message, answered by a code block. `functions` may be called."""

    def __init__(self, tokenizer: Tokenizer, budget: int, *, format: Format, functions: Mapping[str, Callable]):
        self.tokenizer, self.budget, self.format = tokenizer, budget, format
        self.write = partial(write_chat, functions=functions)

    def prompt(self, task: Task) -> Prompt:
        def tokens(messages: Messages) -> int:
            return len(self.tokenizer.prompt(messages))

        return fit_prompt(task, tokens, self.budget, format=self.format, write=self.write)

    def encode(self, task: Task) -> list[int]:
        return list(self.tokenizer.prompt(self.prompt(task).content))

    def read(self, text: str) -> str:
        """The last code block that is closed, or the one that is not; without one, the whole text."""
        blocks = re.findall(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", text, re.DOTALL)
        return blocks[-1] if blocks else text

    def answer(self, program: str) -> list[int]:
        return [*self.tokenizer.encode(f"```python\n{program.rstrip()}\n```"), self.tokenizer.eos_id]
