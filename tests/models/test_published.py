"""Models of this project are found in exports and pulled runs; nothing but classes of our models is built."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_model

from utils.core.checkpoints import Checkpoints
from utils.core.run import Run
from utils.models.source import SourceError, find, load


def config_of(model, **more):
    kind = type(model)
    about = {"architectures": [kind.__name__], "builds": f"{kind.__module__}:{kind.__name__}", "kind": kind.kind}
    return json.dumps({**model.config.model_dump(mode="json"), **about, **more})


@pytest.fixture
def export(make_gpt, tmp_path):
    """(model, its export folder)"""
    model, folder = make_gpt(), tmp_path / "export"
    folder.mkdir()
    (folder / "config.json").write_text(config_of(model))
    save_model(model, str(folder / "model.safetensors"))
    return model, folder


@pytest.fixture
def run(make_gpt, tmp_path):
    """(model, a run as `pull` leaves it)"""
    model = make_gpt()
    run = Run.create(tmp_path / "runs", "gpt", model.config)
    (run.path / "source").mkdir()
    (run.path / "source" / "config.json").write_text(config_of(model))
    Checkpoints(run.path / "checkpoints").save(7, {"model": model.state_dict()}, 1.5)
    return model, run.path


@pytest.mark.parametrize("made", ["export", "run"])
def test_a_model_of_ours_comes_with_its_weights_from_an_export_and_from_a_pulled_run(made, request):
    model, folder = request.getfixturevalue(made)
    found = find(str(folder))
    assert (found.where, found.name) == ("published", f"file:{folder}")
    assert find(found.name) == found
    loaded = load(found)
    assert (loaded.kind, loaded.pretrained) == ("causal_lm", True)
    ids = torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        assert torch.equal(loaded.model.eval()(ids), model(ids))
        assert not torch.equal(loaded.build().eval()(ids), model(ids))  # a fresh one, with weights of its own
    assert ("step 7" if made == "run" else "model.safetensors") in loaded.chosen


def test_validation_takes_an_export_and_a_pulled_run(export, run):
    from utils.validation.report import validate
    from utils.validation.settings import ValidationConfig

    for _, folder in (export, run):
        report = validate(ValidationConfig.load(source=str(folder), scale="smoke", device="cpu"))
        assert report.sound, str(report)


@pytest.mark.parametrize("name", ["os:system", "utils.cli:main", "utils.models.found:SourceError", "utils.evil"])
def test_a_config_cannot_name_other_code(name, export):
    model, folder = export
    (folder / "config.json").write_text(config_of(model, builds=name))
    with pytest.raises(SourceError, match="expected a class of our models|names no kind"):
        load(find(str(folder)))


def test_overrides_that_give_another_shape_are_refused(export):
    with pytest.raises(SourceError, match="Leave out overrides that change its shape"):
        load(find(str(export[1])), overrides={"width": 64})
    with pytest.raises(SourceError, match="no_such"):
        load(find(str(export[1])), overrides={"no_such": 1})


def test_another_kind_than_its_own_is_refused(export):
    with pytest.raises(SourceError, match="says it is"):
        load(find(str(export[1])), kind="classifier")


def test_a_run_that_was_never_exported_is_told_to_be(make_gpt, tmp_path):
    run = Run.create(tmp_path / "runs", "gpt", make_gpt().config)
    with pytest.raises(SourceError, match="export it first: python -m utils export"):
        find(str(run.path))


def test_a_run_is_found_by_its_export(export, tmp_path):
    model, folder = export
    run = Run.create(tmp_path / "runs", "gpt", model.config)
    folder.rename(run.path / "export")
    assert load(find(str(run.path))).model.state_dict().keys() == model.state_dict().keys()


def test_of_ours_under_a_hugging_face_name_it_is_said_what_to_do(export):
    with pytest.raises(SourceError, match="name it without hf:"):
        load(find(f"hf:{export[1]}"))


def test_a_vae_is_sent_to_its_own_command(export):
    model, folder = export
    (folder / "config.json").write_text(config_of(model, kind="vae"))
    with pytest.raises(SourceError, match="vae evaluate"):
        load(find(str(folder)))
