"""Out of memory: a step is done again with fewer rows at once, and ends as if it had been made so from the start."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from utils.core.checkpoints import Checkpoints
from utils.training.evaluate import evaluate, evaluation_rows
from utils.training.memory import OutOfMemory, Rows, out_of_memory
from utils.training.objectives import next_token


def refuse():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


def limited(most, *, training=True, start=0):
    """next_token, on a device that takes at most so many rows at once, from step `start` on."""

    def objective(model, batch, step):
        if model.training == training and torch.is_grad_enabled() == training and step >= start:
            objective.came.append(len(batch["input_ids"]))
            if objective.came[-1] > most:
                refuse()
        return next_token(model, batch, step)

    objective.came = []
    return objective


def states(run):
    return {one.step: one.load() for one in Checkpoints(run.path / "checkpoints").all()}


def test_refusals_of_every_allocator_are_told_from_other_errors():
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60)  # of 4 exbibytes, from torch's allocator on the CPU
    assert out_of_memory(real.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"))
    assert not out_of_memory(RuntimeError("shape mismatch"))
    assert not out_of_memory(ValueError("DefaultCPUAllocator"))


def test_rows_halve_until_they_fit_and_stay_there(caplog):
    rows, tries, undone = Rows(None, "a test"), [], []

    def work(parts):
        tries.append([len(part["x"]) for part in parts])
        return refuse() if max(tries[-1]) > 2 else tries[-1]

    batch = {"x": torch.zeros(7)}
    assert rows.run(batch, work, lambda: undone.append(1)) == [2, 2, 2, 1]
    assert tries == [[7], [4, 3], [2, 2, 2, 1]]
    assert undone == [1, 1]
    assert (rows.most, rows.halved) == (2, True)
    assert rows.run(batch, work, undone.clear) == [2, 2, 2, 1]
    assert len(tries) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "7 rows of a test at once" in caplog.records[0].message
    assert "From here on 4 at once" in caplog.records[0].message


def test_every_try_draws_the_same_numbers():
    rows, drawn = Rows(None, "a test"), []

    def work(parts):
        drawn.append(torch.rand(3))
        return refuse() if len(drawn) < 3 else None

    rows.run({"x": torch.zeros(4)}, work, lambda: None)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_one_row_that_is_too_much_is_an_error_that_says_what_to_do():
    with pytest.raises(OutOfMemory, match=r"one row of a test: CUDA out of memory.*gradient_checkpointing=true"):
        Rows(None, "a test").run({"x": torch.zeros(5)}, lambda parts: refuse(), lambda: None)


def test_several_processes_are_told_which_setting_to_change():
    with pytest.raises(OutOfMemory, match=r"6 rows of a test.*train\.micro_batch_size=3"):
        Rows(None, "a test", processes=2).run({"x": torch.zeros(6)}, lambda parts: refuse(), lambda: None)


def test_step_that_runs_out_of_memory_ends_as_one_of_smaller_passes_from_the_start(train, tiny_model, trace, caplog):
    models, objective = [tiny_model(), tiny_model()], limited(2, start=4)
    settings = {"lr": 1e-3, "restore_best": False}
    halved = train(models[0], objective=objective, **settings)
    small = train(models[1], micro_batch_size=2, **settings)
    # Step 5 of 6 rows: 6 at once, 3, and then 2 each; afterwards 2, but for the rest of the epoch's last batch.
    assert objective.came[:5] == [6, 3, 2, 2, 2]
    assert max(objective.came[2:]) == 2
    assert halved.progress.finished == "complete after 10 steps"
    assert halved.progress.targets == small.progress.targets
    names = ["train/loss", "train/accuracy", "train/grad_norm", "validation/loss"]
    assert_close(*(torch.tensor(trace(one.run)[names].values) for one in (halved, small)), equal_nan=True)
    assert_close(models[0].state_dict(), models[1].state_dict())
    logged = trace(halved.run)["train/micro_batch_size"]
    assert logged.dropna().to_dict() == dict.fromkeys(range(5, 11), 2)
    assert "Out of memory with 6 rows of a training step" in caplog.text


class Normed(nn.Module):
    """Logits from a table, through running statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(10, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
        self.dropout = nn.Dropout(0.3)

    def forward(self, input_ids, attention_mask=None):
        x = self.norm(self.table(input_ids).transpose(1, 2)).transpose(1, 2)
        return self.head(self.dropout(x))


@pytest.mark.parametrize("at", [0, 1])
def test_failed_try_leaves_no_trace_in_gradients_statistics_or_generators(at, train):
    """A try that fails before anything is done, and one that fails after it, end bit for bit alike."""
    ends = []
    for late in (False, True):
        torch.manual_seed(0)
        model, passes = Normed(), []

        def objective(model, batch, step, late=late, passes=passes):
            if model.training and torch.is_grad_enabled() and step == 3:
                passes.append(len(batch["input_ids"]))
            first = passes.count(3) == at + 1 and len(passes) == at + 1 and step == 3
            values = None
            if first and late:
                values = next_token(model, batch, step)
                values["loss"].backward()  # what memory refuses is the rest
            if first:
                refuse()
            return values or next_token(model, batch, step)

        result = train(model, objective=objective, micro_batch_size=3, max_steps=6, warmup_steps=0, restore_best=False)
        assert result.progress.finished
        assert passes == [3] * (at + 1) + [2, 2, 2]
        ends.append({name: value.clone() for name, value in model.state_dict().items()})
    assert_close(*ends, rtol=0, atol=0)


def test_evaluation_that_runs_out_of_memory_has_the_same_result(tiny_model, data, settings, caplog):
    model, limit, objective = tiny_model(), evaluation_rows(), limited(2, training=False)
    with torch.no_grad():
        expected = evaluate(model, next_token, data.validation, settings())
        found = evaluate(model, objective, data.validation, settings(), limit=limit)
    assert found == pytest.approx(expected, rel=1e-6)
    assert limit.most == 2
    assert [rows for rows in objective.came if rows > 2] == [6, 3]
    assert "of an evaluation" in caplog.text
    again = limited(2, training=False)
    evaluate(model, again, data.validation, settings(), limit=limit)
    assert max(again.came) == 2


def test_fit_goes_on_after_evaluations_that_ran_out_of_memory(train, trace):
    full, cut = train(), train(objective=limited(1, training=False))
    assert cut.progress.finished
    assert cut.progress.eval_rows == 1
    assert cut.progress.rows == 0
    losses = [trace(one.run)["validation/loss"].dropna() for one in (full, cut)]
    assert losses[1].to_list() == pytest.approx(losses[0].to_list(), rel=1e-6)


@pytest.mark.parametrize(("device", "came"), [("cpu", [3]), ("another", [6])])
def test_fewer_rows_are_remembered_on_that_device_alone(device, came, train, new_run, monkeypatch):
    run, first, second = new_run(), limited(3), limited(99)

    def stopping(model, batch, step):
        if model.training and step == 5:
            raise InterruptedError
        return first(model, batch, step)

    with pytest.raises(InterruptedError):
        train(run=run, objective=stopping, checkpoint_every=4)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("utils.training.session.device_name", lambda _: device)
        train(run=run, objective=second, checkpoint_every=4)
    assert second.came[:1] == came
    assert [entry["micro_batch_size"] for entry in run.stamp["sessions"]] == [None, 3 if came == [3] else None]
