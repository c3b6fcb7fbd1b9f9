"""Whether a task comes back from text and tokens is found out, not taken for granted."""

from utils.rl.dialogue import PieceDialogue
from utils.rl.round_trip import round_trip, says
from utils.rl.vocabulary import HEAD, PieceTokenizer


class Forgetful(PieceTokenizer):
    """Takes every 7 for an 8."""

    def decode(self, ids):
        return super().decode(ids).replace("7", "8")


def test_grids_and_prompts_come_back(flip_problems):
    task = flip_problems[0].task
    table = round_trip(task, PieceDialogue(PieceTokenizer(["crop"]), 500))
    assert list(table["written"]) == ["grids as digits", "grids as compact", "grids as objects", "prompt as tokens"]
    assert list(table["comes back the same"]) == ["10 of 10 grids"] * 3 + ["yes"]  # five pairs
    # 10 grids of 2 rows of 3 digits and a line break between: 7 characters each.
    assert table["takes"][0] == "70 characters"
    dialogue = PieceDialogue(PieceTokenizer(["crop"]), 500)
    told = f"{len(dialogue.encode(task))} tokens (vocabulary {dialogue.tokenizer.vocab_size})"
    assert table["takes"][3] == told


def test_what_does_not_come_back_is_told(flip_problems, monkeypatch):
    task = flip_problems[0].task
    assert any((grid == 7).any() for pair in task.train for grid in (pair.input, pair.output))
    assert round_trip(task, PieceDialogue(Forgetful(["crop"]), 500))["comes back the same"].iloc[-1] == "no"
    monkeypatch.setattr("utils.rl.round_trip.from_text", lambda text, name: task.train[0].input)
    found = round_trip(task, PieceDialogue(PieceTokenizer(["crop"]), 500))["comes back the same"]
    assert set(found[:3]) == {"1 of 10 grids"}


def test_messages_come_back_whole_and_in_order():
    chat = [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "What is 2?"}]
    assert says("system\nBe brief.\nuser\nWhat is 2?\nassistant\n", chat)
    assert not says("user\nWhat is 2?\nsystem\nBe brief.\n", chat)
    assert not says("system\nBe brief.\nuser\nWhat is 3?\n", chat)
    assert says("input\n1\n" + HEAD, "input\n1\n")
    assert not says("input\n2\n" + HEAD, "input\n1\n")
