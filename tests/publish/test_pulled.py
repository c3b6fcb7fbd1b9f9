"""A pulled run of any family is one that its own commands take. Fetching and refusals are in `test_hub`."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("huggingface_hub")

from utils.core.run import Run  # noqa: E402
from utils.publish import pulled  # noqa: E402
from utils.publish.folder import write_folder  # noqa: E402
from utils.publish.weights import write_safetensors  # noqa: E402

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAMS = {
    "primitives": ("flip_rows", "transpose"), "max_depth": 1, "depth_weights": (1.0,), "min_side": 3, "max_side": 3,
    "max_colours": 2,
}  # fmt: skip


def exported(exportable, to):
    """An export folder of weights alone."""

    def fill(folder):
        return {
            "safetensors": {"status": "pass", "files": [file.name for file in write_safetensors(exportable, folder)]}
        }

    return write_folder(exportable, fill, to=to)


@pytest.fixture
def pull(monkeypatch):
    """`pull(folder, root)`: what `publish.hub.pull` makes of a repository that holds the files of `folder`."""

    def made(folder: Path, root: Path) -> Run:
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        info = SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in files])
        hub = SimpleNamespace(repo_info=lambda *a, **k: info, snapshot_download=lambda *a, **k: str(folder))
        monkeypatch.setattr(pulled, "connect", lambda: hub)
        return pulled.pull("ada/model", root=root)

    return made


def told(app, *arguments):
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory, one_thread):
    import numpy as np

    from utils.arc.grids import to_canvas
    from utils.vae.recipes import VAERecipe, train

    folder, rng = tmp_path_factory.mktemp("grids"), np.random.default_rng(0)
    grids = [to_canvas(rng.integers(0, 3, rng.integers(2, 8, 2))) for _ in range(48)]
    np.savez(folder / "grids.npz", grids=np.stack(grids), task_ids=np.array([f"task{at // 2:02}" for at in range(48)]))
    recipe = VAERecipe.load(
        name="tiny", corpus={"source": str(folder), "total": 60, "splits": (0.6, 0.2, 0.2)},
        model={"widths": (8, 8), "blocks": (1, 1), "channels": 2, "overall": 8, "colours": 4},
        train={"max_steps": 6, "batch_size": 8, "warmup_steps": 2, "eval_every": 3, "log_every": 1, "device": "cpu",
               "precision": "fp32", "trackers": ()},
        evaluation={"iwae_samples": 2, "iwae_grids": 4, "bootstrap": 20, "factor_grids": 60},
        sampler={"grids": 20, "components": 2, "steps": 3, "width": 16, "layers": 1}, betas=(), beta_steps=4,
    )  # fmt: skip
    return train(recipe, tmp_path_factory.mktemp("runs")).run


def card(output):
    """What a command prints but for the place of its results."""
    return [line for line in output.splitlines() if not line.startswith(("Metrics of", "Report of"))]


def test_a_pulled_vae_is_evaluated_and_sampled_from_as_the_run_itself(vae_run, pull, tmp_path):
    from utils.vae.commands import app
    from utils.vae.exportable import exportable_of

    run = pull(exported(exportable_of(vae_run), tmp_path / "export"), vae_run.path.parent)  # beside its corpus
    assert card(told(app, "evaluate", run.path)) == card(told(app, "evaluate", vae_run.path))
    assert told(app, "sample", run.path) == told(app, "sample", vae_run.path)


def test_a_pulled_vae_whose_corpus_is_another_here_is_not_judged_on_it(vae_run, pull, tmp_path):
    import shutil

    from utils.data.text import CorpusError
    from utils.vae.exportable import exportable_of
    from utils.vae.recipes import VAERecipe, open_trained

    run = pull(exported(exportable_of(vae_run), tmp_path / "export"), tmp_path / "runs")
    assert not (tmp_path / "runs" / "data").exists()
    recipe = VAERecipe.load(run.path / "config.yaml")
    other = shutil.copytree(recipe.corpus.source, tmp_path / "other")
    import numpy as np

    with np.load(other / "grids.npz") as found:
        np.savez(other / "grids.npz", grids=found["grids"][:40], task_ids=found["task_ids"][:40])
    recipe.replace(corpus={"source": str(other)}).save(run.path / "config.yaml")
    with pytest.raises(CorpusError, match="was trained on corpus"):
        open_trained(run.path).data()


@pytest.mark.parametrize("name", ["gpt", "t5"])
def test_a_pulled_model_of_ours_is_a_source_of_models_as_its_export_is(name, exportables, pull, tmp_path):
    from utils.models.source import find, load

    one = exportables[name]
    folder = exported(one, tmp_path / "export")
    for place in (folder, pull(folder, tmp_path / "runs").path):
        loaded = load(find(str(place)))
        assert (loaded.kind, loaded.pretrained) == (one.kind, True)
        for key, value in one.model.state_dict().items():
            assert torch.equal(loaded.model.state_dict()[key], value)


@pytest.fixture(scope="module")
def ppo_run(tmp_path_factory, one_thread):
    if not hasattr(os, "fork"):
        pytest.skip("the sandbox needs fork")
    from utils.rl.recipes import PPORecipe, train

    still = {"device": "cpu", "precision": "fp32", "trackers": (), "checkpoint_minutes": None}
    recipe = PPORecipe.load(
        name="tiny-ppo", pool={"programs": PROGRAMS, "train": 24, "validation": 4, "test": 4, "max_cells": 120},
        policy={"tiny": {"num_layers": 1, "num_heads": 2, "width": 32, "context_length": 192}}, prompt_tokens=150,
        warm_start={"max_steps": 20, "batch_size": 16, "lr": 1e-2, "warmup_steps": 5, "eval_every": 20, **still},
        ppo={"updates": 2, "prompts": 4, "samples": 2, "minibatches": 1, "eval_every": 1,
             "sample": {"max_new_tokens": 16}, **still},
        sandbox={"timeout": 10.0}, evaluation={"samples": 2, "ks": (1,), "bootstrap": 50},
    )  # fmt: skip
    return train(recipe, tmp_path_factory.mktemp("ppo-runs")).run


def test_a_pulled_policy_is_judged_as_the_run_itself_and_has_a_new_value(ppo_run, pull, tmp_path):
    from utils.rl.commands import app
    from utils.rl.exportable import exportable_of
    from utils.rl.recipes import open_trained

    run = pull(exported(exportable_of(ppo_run), tmp_path / "export"), tmp_path / "runs")
    ours, theirs = open_trained(ppo_run.path).policy, open_trained(run.path).policy
    for name, value in ours.actor.model.state_dict().items():
        assert torch.equal(theirs.actor.model.state_dict()[name], value)
    assert not theirs.value.weight.any()
    assert "not published" in theirs.facts["value"]
    assert card(told(app, "evaluate", run.path)) == card(told(app, "evaluate", ppo_run.path))
    again = exportable_of(run)  # and may be exported again
    assert again.model.state_dict().keys() == ours.actor.model.state_dict().keys()


def test_a_pulled_policy_of_transformers_asks_nobody_for_its_base(gpt2_folder, pull, tmp_path, monkeypatch):
    """A LoRA of a model that is no longer there: what came is whole, adapters and all."""
    pytest.importorskip("peft")
    import shutil

    from utils.core.checkpoints import Checkpoints
    from utils.rl.exportable import exportable_of
    from utils.rl.recipes import PPORecipe, build, open_trained

    base = shutil.copytree(gpt2_folder, tmp_path / "base")
    recipe = PPORecipe.load(
        name="hub-ppo", policy={"kind": "hub", "model": str(base), "lora": {"rank": 2}}, prompt_tokens=16,
        ppo={"updates": 1, "sample": {"max_new_tokens": 8}, "device": "cpu", "precision": "fp32", "trackers": ()},
        warm_start=None, pool={"programs": PROGRAMS, "train": 4, "validation": 2, "test": 2, "max_cells": 120},
    )  # fmt: skip
    run = Run.create(tmp_path / "from", "hub-ppo", recipe)
    policy = build(recipe)
    torch.manual_seed(0)
    for name, one in policy.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(one)
    Checkpoints(run.path / "checkpoints").save(1, {"policy": policy.state_dict()}, -0.5)
    folder = exported(exportable_of(run), tmp_path / "export")
    shutil.rmtree(base)
    theirs = open_trained(pull(folder, tmp_path / "runs").path)
    ids, mask = torch.arange(12).reshape(2, 6), torch.ones(2, 6, dtype=torch.long)
    with torch.no_grad():
        expected = policy.actor.model(input_ids=ids, attention_mask=mask).logits
        found = theirs.policy.actor.model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found, expected)
    assert theirs.policy.tokenizer.encode("the red bird") == policy.tokenizer.encode("the red bird")
    assert theirs.recipe.policy.lora is None
