"""Parity: one export in every format; wrong weights, damaged and missing files each fail, and alone."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from utils.publish import bundle, weights
from utils.publish.graphs import Graph, file_of
from utils.publish.parity import PROVABLE, TRAINING, changed, proofs

EXACT = tuple(name for name in PROVABLE if name != "int8")


@pytest.fixture(scope="module")
def folder(exportables, tmp_path_factory):
    """What an export of the GPT holds, as far as parity reads it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    exportable, folder = exportables["gpt"], tmp_path_factory.mktemp("export")
    (part,) = exportable.parts
    for name in ("onnx", "int8", "pt2", "torchscript"):
        getattr(Graph(part), f"write_{name}")(folder / file_of(name, part))
    weights.write_safetensors(exportable, folder)
    weights.write_state_dict(exportable, folder)
    bundle.write_code(exportable, folder)
    about = {"loader": "ours", "builds": exportable.builds, "config": exportable.config}
    (folder / "metadata.json").write_text(json.dumps(about))
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "export")


def test_every_format_is_proven_without_what_a_stranger_lacks(exportables, folder):
    found = {proof.format: proof for proof in proofs(exportables["gpt"], folder, PROVABLE)}
    assert {name: proof.reasons for name, proof in found.items()} == {name: [] for name in PROVABLE}
    assert not any({*TRAINING} & {*proof.modules} for proof in found.values())
    assert not {"torch", "transformers"} & {*found["onnx"].modules, *found["int8"].modules}
    assert not {"transformers", "onnxruntime", "model_code"} & {*found["pt2"].modules, *found["torchscript"].modules}
    assert "model_code" in found["safetensors"].modules
    (part,) = exportables["gpt"].parts
    sizes = {(len(one["input_ids"]), str(one["input_ids"].shape[1])) for one in part.others}
    exported = (len(part.inputs["input_ids"]), str(part.inputs["input_ids"].shape[1]))
    assert exported not in sizes
    for name in ("onnx", "pt2", "torchscript", "safetensors"):
        assert {(row["batch"], row["length"]) for row in found[name].rows} == sizes, name


def test_one_weight_that_is_off_by_1e_2_fails_every_exact_format(exportables, folder):
    exportable = exportables["gpt"]
    weight = exportable.model.get_parameter("embedding.weight")
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[3, 0] += 1e-2  # of the head's row of token 3 too: its logit moves by 1e-2 of the normed stream
        checks = {proof.format: proof.check for proof in proofs(exportable, folder, EXACT)}
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(EXACT, "fail")
    for name in ("onnx", "pt2", "torchscript", "safetensors"):
        assert "is above 0.0001" in checks[name].summary
    for name in ("state_dict", "safetensors"):
        assert "embedding.weight: not the trained one" in checks[name].summary.replace(
            "head.weight", "embedding.weight"
        )


def test_damaged_and_missing_files_fail_with_their_reason_and_the_others_still_pass(exportables, copied):
    def cut(name):
        content = (copied / name).read_bytes()
        (copied / name).write_bytes(content[: len(content) // 2])

    for name in ("model.onnx", "model.pt2", "model.safetensors"):
        cut(name)
    (copied / "model.torchscript.pt").unlink()
    checks = {proof.format: proof.check for proof in proofs(exportables["gpt"], copied, PROVABLE)}
    assert {name: check.status for name, check in checks.items()} == {
        "onnx": "fail", "int8": "pass", "pt2": "fail", "torchscript": "fail", "state_dict": "pass",
        "safetensors": "fail",
    }  # fmt: skip
    for name in ("onnx", "pt2", "safetensors"):
        assert "does not load and run" in checks[name].summary
    assert "model.torchscript.pt is not in the folder" in checks["torchscript"].summary


def test_flipped_bytes_of_weights_fail_by_what_comes_out(exportables, copied):
    import onnx

    model = onnx.load(copied / "model.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    content = (copied / "model.onnx").read_bytes()
    assert content.count(largest.raw_data) == 1
    flipped = bytes(byte ^ 0x40 if at % 4 == 3 else byte for at, byte in enumerate(largest.raw_data))  # exponents
    (copied / "model.onnx").write_bytes(content.replace(largest.raw_data, flipped))
    (proof,) = proofs(exportables["gpt"], copied, ["onnx"])
    assert proof.check.status == "fail"
    assert "largest difference" in proof.check.summary


def test_int8_of_another_model_fails(exportables, folder):
    exportable = exportables["gpt"]
    other = dataclasses.replace(exportable.parts[0], module=_other(exportable))
    (proof,) = proofs(dataclasses.replace(exportable, parts=(other,)), folder, ["int8"])
    assert proof.check.status == "fail"


def _other(exportable):
    """The part's module with its weights drawn anew."""
    import copy

    module = copy.deepcopy(exportable.parts[0].module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.1, generator=generator)
    return module


def test_a_file_that_is_not_what_metadata_lists_is_named(exportables, copied):
    import hashlib

    content = (copied / "model.onnx").read_bytes()
    sha = hashlib.sha256(content).hexdigest()
    about = json.loads((copied / "metadata.json").read_text())
    listed = {**about, "files": {"model.onnx": {"sha256": sha, "bytes": len(content)}}}
    (copied / "metadata.json").write_text(json.dumps(listed))
    assert changed(exportables["gpt"], "onnx", copied) == []
    (copied / "model.onnx").write_bytes(content + b"\0")
    assert changed(exportables["gpt"], "onnx", copied) == ["the sha256 of model.onnx is not the one in metadata.json"]


def test_an_unknown_format_is_refused_by_name(exportables, folder):
    with pytest.raises(ValueError, match="gguf; expected some of onnx"):
        proofs(exportables["gpt"], folder, ["gguf"])
