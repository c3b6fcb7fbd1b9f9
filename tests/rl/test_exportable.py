"""A policy is exported as the causal language model that it is, and its tokenizer with it."""

from __future__ import annotations

import json

import pytest
import torch

from utils.arc.dsl import PRIMITIVES
from utils.publish.folder import verify, write_folder
from utils.publish.graphs import plain_flags
from utils.publish.loading import load
from utils.publish.weights import write_safetensors
from utils.rl import tiny
from utils.rl.exportable import Unbranched, coordinates, exportable_of, merged
from utils.rl.models import TinyConfig
from utils.rl.pieces import Pieces
from utils.rl.tiny import GridGPT
from utils.training.text_parts import Rows, text_parts

PROMPT = "input\n12\n34\noutput\n21\n43\ninput\n5\noutput\n5\ndef solve(grid):\n    return flip_rows(grid)\n"


@pytest.fixture
def grid_gpt():
    torch.manual_seed(0)
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context_length": 128}
    model = GridGPT(TinyConfig(**shape).replace(vocab_size=Pieces(PRIMITIVES).vocab_size)).eval()
    with torch.no_grad():
        for table in (model.rows, model.columns, model.parts):
            table.weight.normal_()  # large enough for every place to matter
        model.views.weight[:-1].normal_()
    return model


def written(exportable, folder):
    return {"safetensors": {"files": [path.name for path in write_safetensors(exportable, folder)]}}


def ids_of():
    """(3, T): a task with its program, a program alone, and ids in no order."""
    task = torch.tensor(Pieces(PRIMITIVES).encode(PROMPT))
    program = torch.full_like(task, task[-1])
    generator = torch.Generator().manual_seed(0)
    return torch.stack((task, program, torch.randint(20, task.shape, generator=generator)))


@torch.no_grad()
def test_the_policy_s_graph_gives_the_policy_s_logits(grid_gpt):
    ids = ids_of()
    graph = Unbranched.of(grid_gpt)
    torch.testing.assert_close(graph(ids), grid_gpt(ids))
    torch.testing.assert_close(graph(ids[1:2]), grid_gpt(ids[1:2]))  # no part of a grid: the branch that is left out
    assert graph.embedding.weight.data_ptr() == grid_gpt.embedding.weight.data_ptr()  # no second copy
    assert graph.head.weight is graph.embedding.weight


def test_coordinates_without_running_maxima_are_those_with_them():
    for ours, theirs in zip(coordinates(ids_of()), tiny.coordinates(ids_of())):
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_torch_export_and_a_trace_take_any_number_and_length_of_rows(grid_gpt):
    (part,) = text_parts(Unbranched.of(grid_gpt), "causal_lm", Rows(grid_gpt.config.vocab_size, 128))
    given, free = tuple(part.inputs.values()), dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)
    program = torch.export.export(part.module, given, dynamic_shapes=(free, free)).module()
    with plain_flags():
        traced = torch.jit.trace(part.module, given, check_trace=False)
    task = {"input_ids": ids_of(), "attention_mask": torch.ones_like(ids_of())}
    for other in (*part.others[:3], task):
        torch.testing.assert_close(program(*other.values()), grid_gpt(**other))
        torch.testing.assert_close(traced(*other.values()), grid_gpt(**other))


def test_adapters_are_added_to_the_layers_that_they_stand_beside():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    names = list(model.state_dict())
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False), model)
    given = torch.randn(5, 4)
    expected = model.eval()(given)
    assert list(model.state_dict()) != names
    found = merged(model)
    assert list(found.state_dict()) == names
    torch.testing.assert_close(found(given), expected)


@torch.no_grad()
def test_a_run_is_published_as_the_model_that_writes_its_programs(ppo_trained, tmp_path):
    one, policy = exportable_of(ppo_trained.run), ppo_trained.policy
    assert (one.kind, one.loader, one.builds) == ("causal_lm", "ours", "utils.rl.tiny:GridGPT")
    assert one.step == ppo_trained.update
    assert one.metrics["validation/pass@1"] == ppo_trained.run.metrics()["validation/pass@1"][one.step]
    assert not [name for name in one.model.state_dict() if "value" in name]
    folder = write_folder(one, lambda inside: written(one, inside), to=tmp_path / "export")
    verify(folder)
    model, tokenizer, about = load(folder)
    ids = torch.tensor([policy.tokenizer.encode(PROMPT)])
    assert torch.equal(model(ids), policy.actor.model(ids))
    assert tokenizer.encode(PROMPT) == policy.tokenizer.encode(PROMPT)
    assert tokenizer.start_id == policy.tokenizer.bos_id
    assert about["limits"]["vocab_size"] == policy.tokenizer.vocab_size
    assert "rl/tiny.py" in {name.removeprefix("model_code/") for name in about["files"]}
    assert json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["class"] == "utils.rl.pieces:Pieces"


def test_what_was_judged_of_the_run_s_weights_comes_with_its_intervals(ppo_trained):
    run, update = ppo_trained.run, ppo_trained.update
    path = run.path / "results" / "metrics.json"
    path.parent.mkdir(exist_ok=True)
    rate = {"value": 0.5, "low": 0.25, "high": 0.75}
    content = {"update": update, "results": {"before PPO": {"rates": {}}, "after PPO": {"rates": {"pass@1": rate}}}}
    try:
        path.write_text(json.dumps(content))
        assert exportable_of(run).metrics["test/pass@1"] == rate
        path.write_text(json.dumps({**content, "update": update + 1}))
        assert "test/pass@1" not in exportable_of(run).metrics
    finally:
        path.unlink()


def test_weights_in_place_of_a_damaged_best_are_told(ppo_recipe, tmp_path):
    from utils.core.checkpoints import Checkpoints
    from utils.core.run import Run
    from utils.rl.recipes import build

    run, policy = Run.create(tmp_path, "damaged", ppo_recipe), build(ppo_recipe)
    checkpoints = Checkpoints(run.path / "checkpoints", keep_last=3)
    for update, metric in ((1, -0.2), (2, -0.6), (3, -0.4)):
        checkpoints.save(update, {"policy": policy.state_dict()}, metric)
    assert (exportable_of(run).step, exportable_of(run).note) == (2, "")
    for update, told in ((1, ""), (2, "step-00000002.damaged")):
        (run.path / "checkpoints" / f"step-{update:08}" / "state.pt").write_bytes(b"cut")
        checkpoints.last(), checkpoints.best()
        if update == 1:
            assert not checkpoints.sound(checkpoints.all()[0])  # a worse one, set aside
        found = exportable_of(run)
        assert told in found.note
        assert bool(found.note) == bool(told)
    assert found.step == 3
