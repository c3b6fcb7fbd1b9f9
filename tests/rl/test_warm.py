"""The warm start's data: only a program's tokens are learned, each after what comes before it, each row once."""

import dataclasses

import numpy as np
import pytest
import torch

from utils.arc.programs import ProgramsConfig
from utils.rl.dialogue import PieceDialogue
from utils.rl.problems import PoolConfig, make_pool
from utils.rl.vocabulary import PieceTokenizer
from utils.rl.warm import NEIGHBOURS, Demonstrations, warm_data
from utils.training.config import TrainConfig
from utils.training.evaluate import evaluate
from utils.training.objectives import IGNORED, next_token

NAMES = ("flip_rows", "recolour")
PIECES = PieceTokenizer(NAMES)
DIALOGUE = PieceDialogue(PIECES, 400)


@pytest.fixture(scope="module")
def pool():
    programs = ProgramsConfig(primitives=NAMES, max_depth=2, max_side=4)
    return make_pool(PoolConfig(programs=programs, train=50, validation=9, test=1, max_cells=200))


@pytest.fixture(scope="module")
def data(pool):
    return warm_data(pool, DIALOGUE.encode, DIALOGUE.answer, PIECES.pad_id)


def rows_of(batch):
    """(prompt and answer, where the answer begins) of each row, read off inputs and labels."""
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist()):
        start = next(at for at, label in enumerate(labels) if label != IGNORED)
        answer = [label for label in labels[start:] if label != IGNORED]
        yield ids[: start + 1], answer, labels[start : start + len(answer)] == answer


def test_a_row_is_a_prompt_and_its_answer_and_only_the_answer_is_a_target(pool, data):
    found = []
    for batch in data.train.batches(8):
        assert batch["input_ids"].shape == batch["labels"].shape
        for prompt, answer, together in rows_of(batch):
            assert together  # targets without a gap
            found.append((prompt, answer))
    expected = [(DIALOGUE.encode(one.task), DIALOGUE.answer(one.program)) for one in pool.train]
    assert found == expected
    ids, labels = batch["input_ids"], batch["labels"]
    inner = (labels[:, :-1] != IGNORED) & (labels[:, :-1] != PIECES.eos_id)
    assert torch.equal(ids[:, 1:][inner], labels[:, :-1][inner])  # a target is the next input
    assert all(answer[-1] == PIECES.eos_id for _, answer in found)


def test_an_epoch_has_every_row_once_in_batches_of_like_length(data):
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(data.train.prompts, data.train.answers)]
    batches = list(data.train.batches(4, seed=1, epoch=0))
    assert len(batches) == data.train.num_batches(4, seed=1) == 13
    assert sum(len(batch["labels"]) for batch in batches) == 50
    found = sorted(tuple(prompt) + tuple(answer) for batch in batches for prompt, answer, _ in rows_of(batch))
    assert found == sorted((*p, *a) for p, a in zip(data.train.prompts, data.train.answers))
    width = sum(batch["labels"].shape[1] for batch in batches)
    unsorted = sum(batch["labels"].shape[1] for batch in data.train.batches(4))
    assert NEIGHBOURS * 4 >= 50  # so all of these are sorted together
    assert width == sum(sorted(lengths)[min(at + 3, 49)] - 1 for at in range(0, 50, 4)) < unsorted


def test_batches_are_a_function_of_seed_and_epoch_and_can_be_taken_up_anywhere(data):
    def batches(**order):
        return [batch["input_ids"].tolist() for batch in data.train.batches(8, **order)]

    assert batches(seed=0, epoch=2) == batches(seed=0, epoch=2)
    assert batches(seed=0, epoch=2)[3:] == batches(seed=0, epoch=2, start=3)
    assert len({str(batches(seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_padding_changes_no_loss(data):
    from utils.models.blocks import TransformerConfig
    from utils.rl.tiny import GridGPT

    torch.manual_seed(0)
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context_length": 400}
    model = GridGPT(TransformerConfig(vocab_size=PIECES.vocab_size, **shape))
    losses = [
        evaluate(
            model, next_token, data.validation, TrainConfig(max_steps=1, warmup_steps=0, batch_size=size, device="cpu")
        )["loss"]
        for size in (1, 4, 9)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_the_fingerprint_is_of_every_prompt_and_answer(pool, data):
    def fingerprint(encode=DIALOGUE.encode, answer=DIALOGUE.answer, pool=pool):
        return warm_data(pool, encode, answer, PIECES.pad_id).fingerprint

    assert fingerprint() == data.fingerprint
    last = pool.train[-1]
    assert fingerprint(encode=lambda task: DIALOGUE.encode(task) + [3] * (task is last.task)) != data.fingerprint
    assert fingerprint(answer=lambda program: DIALOGUE.answer(program)[:-1]) != data.fingerprint
    assert fingerprint(pool=dataclasses.replace(pool, train=pool.train[::-1])) != data.fingerprint


def test_rows_need_not_be_lists():
    rows = Demonstrations([np.array([3, 4])], [(5, 1)], 0)
    (batch,) = rows.batches(2)
    assert batch["input_ids"].tolist() == [[3, 4, 5]]
    assert batch["labels"].tolist() == [[IGNORED, 5, 1]]
