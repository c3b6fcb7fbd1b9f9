"""`export`: every kind of model in every format; what fails is told, and stops nothing else."""

from __future__ import annotations

import dataclasses
import importlib.util
import json

import pytest
import torch
from torch import nn

from utils.core.config import Config
from utils.core.run import Run
from utils.models.exportable import Exportable, Part
from utils.publish.folder import verify
from utils.publish.formats import DEFAULT, FORMATS, export, select


@pytest.fixture(scope="module")
def vae(tmp_path_factory, one_thread) -> Exportable:
    """A VAE of random weights: dense, the smallest."""
    from utils.vae.config import VAEConfig
    from utils.vae.exportable import grid_parts
    from utils.vae.model import BetaVAE

    torch.manual_seed(0)
    model = BetaVAE(VAEConfig(architecture="dense", latents=4)).eval()
    run = Run.create(tmp_path_factory.mktemp("vae-runs"), "vae", model.config)
    return Exportable(
        run=run, name="vae", family="VAE", kind="vae", step=0, model=model, loader="ours", parts=grid_parts(model),
        builds="utils.vae.model:BetaVAE", config=model.config.model_dump(mode="json"),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "classifier", "gpt2", "vae"])
def test_every_kind_of_model_is_exported_in_every_format_and_proven(
    name, request, exportables, tmp_path, capfd, recwarn
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    exportable = request.getfixturevalue("vae") if name == "vae" else exportables[name]
    capfd.readouterr()
    recwarn.clear()
    report = export(exportable, formats=tuple(FORMATS), folder=tmp_path / "export")
    told = capfd.readouterr()
    assert {check.name: (check.status, check.summary) for check in report.checks if check.status != "pass"} == {}
    assert [check.name for check in report.checks] == list(FORMATS)

    about = verify(tmp_path / "export")  # lists the files that are there, and those alone
    assert {format: one["status"] for format, one in about["formats"].items()} == dict.fromkeys(FORMATS, "pass")
    parts = {part.name for part in exportable.parts}
    assert parts == ({"encoder", "decoder"} if name in ("t5", "vae") else {"model"})
    assert set(about["formats"]["onnx"]["files"]) == {f"{part}.onnx" for part in parts}
    for part in exportable.parts:
        for taken, tensor in part.inputs.items():
            stated = about["formats"]["pt2"]["inputs"][taken]
            assert stated["dtype"] == str(tensor.dtype).removeprefix("torch.")
            assert [size for size in stated["shape"] if isinstance(size, int)] == [
                size for axis, size in enumerate(tensor.shape) if axis not in part.axes[taken]
            ]
    for format, one in about["formats"].items():
        assert one["bytes"] == sum((tmp_path / "export" / file).stat().st_size for file in one["files"]), format
    assert "deprecated" in about["formats"]["torchscript"]
    assert json.loads((tmp_path / "export_report.json").read_text())["verdict"] == report.verdict
    assert (tmp_path / "export_report.html").is_file()
    assert not recwarn.list
    assert "arn" not in told.out + told.err  # no Warning and no WARNING: a bar of progress, and that is all


class Deciding(nn.Module):
    """Branches on its data: a trace holds one way, and torch.export none."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, input_ids):
        return self.table(input_ids) * (2.0 if input_ids[0, 0] > 3 else 1.0)


@pytest.fixture
def deciding(tmp_path) -> Exportable:
    """Exported where its branch goes one way, and proven where it goes the other."""
    model, axes = Deciding().eval(), {"input_ids": {0: "batch", 1: "length"}, "logits": {0: "batch", 1: "length"}}
    low, high = {"input_ids": torch.zeros(2, 3, dtype=torch.long)}, {"input_ids": torch.full((1, 5), 7)}
    part = Part("model", model, low, (high,), axes)
    run = Run.create(tmp_path, "deciding", Config())
    return Exportable(
        run=run, name="deciding", family="language model", kind="causal_lm", step=1, model=model, loader="weights",
        parts=(part,),
    )  # fmt: skip


def test_a_format_that_cannot_be_written_fails_without_files_and_the_others_come(deciding):
    report = export(deciding, formats=("pt2", "torchscript", "state_dict"))
    assert {check.name: check.status for check in report.checks} == {
        "safetensors": "pass", "state_dict": "pass", "pt2": "fail", "torchscript": "fail",
    }  # fmt: skip
    assert "not written: torch.export: " in report["pt2"].summary
    assert "is above 0.0001" in report["torchscript"].summary  # written, and wrong
    assert "deprecated" in report["torchscript"].summary
    folder = deciding.run.path / "export"
    about = verify(folder)
    assert about["formats"]["pt2"]["files"] == []
    assert not (folder / "model.pt2").exists()
    assert about["formats"]["torchscript"]["status"] == "fail"
    assert (deciding.run.path / "export_report.html").is_file()
    assert not report.sound


def test_what_a_writer_left_half_done_is_removed(deciding, monkeypatch):
    def half(exportable, graphs, folder):
        (folder / "model.pt2").write_bytes(b"half")
        (folder / "beside").mkdir()
        (folder / "beside" / "more").write_bytes(b"")
        raise OSError("no space left")

    monkeypatch.setitem(FORMATS, "pt2", dataclasses.replace(FORMATS["pt2"], write=half))
    report = export(deciding, formats=("pt2",))
    assert report["pt2"].summary == "not written: OSError: no space left"
    assert not {"model.pt2", "beside/more"} & set(verify(deciding.run.path / "export")["files"])


def test_a_library_that_is_absent_is_told_with_what_to_install(deciding, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnx" else find(name, *more))
    report = export(deciding, formats=("onnx",))
    assert report["onnx"].status == "skip"
    assert report["onnx"].summary == "not written: pip install onnx, then export again"
    assert report["safetensors"].status == "pass"


def test_safetensors_is_always_written_and_int8_when_asked_for():
    assert [one.name for one in select(["onnx"])] == ["safetensors", "onnx"]
    assert set(FORMATS) - set(DEFAULT) == {"int8"}


@pytest.mark.parametrize("names", [["gguf"], "onnx"])
def test_unknown_formats_are_refused_with_the_known_ones(names):
    with pytest.raises(ValueError, match="expected a list of some of safetensors, state_dict, onnx"):
        select(names)


def test_two_exports_of_the_same_weights_are_the_same_folder(exportables, tmp_path):
    one, first, second = exportables["gpt"], tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        export(one, formats=["safetensors", "state_dict"], folder=folder / "export")
    for path in sorted((first / "export").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name
    report = json.loads((first / "export_report.json").read_text())
    assert "latency ms" in json.dumps(report)  # times differ, and are told beside the folder


def test_weights_that_are_not_the_best_are_told_in_report_readme_and_metadata(exportables, tmp_path):
    one = exportables["bert"]
    note = f"The weights of step 3 stand in for better ones: step-00000006.damaged in {one.run.path / 'checkpoints'}."
    report = export(dataclasses.replace(one, step=3, note=note), formats=["safetensors"], folder=tmp_path / "export")
    assert [(check.name, check.status) for check in report.checks] == [("weights", "warn"), ("safetensors", "pass")]
    about, readme = verify(tmp_path / "export"), (tmp_path / "export" / "README.md").read_text()
    assert "stand in for better ones" in about["note"]
    assert about["note"] in readme
    assert str(one.run.path.parent) not in about["note"]
    assert "the best" not in readme
    export(one, formats=["safetensors"], folder=tmp_path / "best")
    assert "the best of run" in (tmp_path / "best" / "README.md").read_text()
