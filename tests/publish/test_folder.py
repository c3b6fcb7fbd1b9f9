"""The export folder: whole or not at all, with what others need, and no secret."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from utils.publish import weights
from utils.publish.folder import ExportError, read_metadata, seal, verify, write_folder
from utils.vae.config import VAEConfig
from utils.vae.model import BetaVAE

NAMES = ["gpt", "bert", "t5", "classifier", "gpt2"]


def with_weights(exportable):
    """A `fill` that writes the weights alone."""

    def fill(folder):
        files = [path.name for path in weights.write_safetensors(exportable, folder)]
        return {"safetensors": {"status": "pass", "files": files}}

    return fill


@pytest.fixture(scope="module")
def exported(exportables, tmp_path_factory):
    """An export folder by name, written when first asked for."""
    folders = {}

    def get(name):
        if name not in folders:
            one = exportables[name]
            folders[name] = write_folder(one, with_weights(one), to=tmp_path_factory.mktemp(name) / "export")
        return folders[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_listed_as_it_is_and_nothing_else(exported, name):
    folder = exported(name)
    about = verify(folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*about["files"], "metadata.json"}
    assert about["files"]["model.safetensors"]["bytes"] == (folder / "model.safetensors").stat().st_size
    told = subprocess.run(["sha256sum", folder / "model.safetensors"], capture_output=True, text=True, check=True)
    assert about["files"]["model.safetensors"]["sha256"] == told.stdout.split()[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs_where_our_package_is_not(exported, name):
    folder = exported(name)
    # -I: neither this folder nor PYTHONPATH; the hook refuses what only the repository has
    code = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('utils', 'lightning_fabric'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"sys.argv = ['load_example.py']\nrunpy.run_path({str(folder / 'load_example.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {"classifier": "blue", "gpt": "The first of them is"}  # a class; where the characters do not know it
    assert len(done.stdout.strip()) > 3
    if name == "classifier":
        assert expected[name] in done.stdout
    verify(folder)  # it left nothing behind


def test_metadata_says_what_the_model_is(exported, exportables):
    about, one = read_metadata(exported("t5")), exportables["t5"]
    assert (about["kind"], about["loader"], about["builds"]) == ("seq2seq", "ours", "utils.models.t5:T5")
    assert about["config"]["vocab_size"] == one.model.embedding.num_embeddings
    assert about["limits"] == {"vocab_size": 380, "context_length": one.config["context_length"]}
    assert about["run"] == {"id": one.run.id, "fingerprint": one.run.stamp["config_hash"]}
    assert about["metrics"]["validation/loss"] == pytest.approx(one.metrics["validation/loss"])
    assert about["environment"]["torch"] == torch.__version__
    assert read_metadata(exported("classifier"))["classes"] == ["blue", "green", "red", "white"]


def test_a_model_of_transformers_is_read_by_from_pretrained_with_its_tokenizer(exported, exportables):
    import transformers

    folder, one = exported("gpt2"), exportables["gpt2"]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    given = one.parts[0].inputs
    with torch.no_grad():
        assert torch.equal(model(**given).logits, one.parts[0].module(*given.values()))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("the red bird")["input_ids"]) == "the red bird"
    assert not (folder / "model_code").exists()
    assert str(one.run.path.parent.parent) not in (folder / "config.json").read_text()  # no place of this machine


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda folder: (folder / "run" / "more.txt").write_text("x"), "run/more.txt is not listed"),
        (lambda folder: (folder / "requirements.txt").write_text("torch"), "requirements.txt has 5 bytes"),
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors is changed: sha256"),
    ],
)
def test_a_missing_changed_or_unlisted_file_is_named(exportables, tmp_path, harm, told):
    one = exportables["classifier"]
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    harm(folder)
    with pytest.raises(ExportError, match=told):
        verify(folder)


def flip(path):
    """One bit of a weight, the size as it was."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_sealing_again_takes_up_a_new_readme_and_leaves_the_rest(exportables, tmp_path):
    one = exportables["classifier"]
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    before = read_metadata(folder)
    (folder / "README.md").write_text("a card")
    with pytest.raises(ExportError, match="README.md"):
        verify(folder)
    seal(folder)
    after = verify(folder)
    assert {name: after[name] for name in after if name != "files"} == {
        name: before[name] for name in before if name != "files"
    }
    assert [name for name in after["files"] if after["files"][name] != before["files"][name]] == ["README.md"]


def test_bytecode_counts_in_a_folder_that_comes_from_elsewhere(exportables, tmp_path):
    one = exportables["classifier"]
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    (folder / "model_code" / "__pycache__").mkdir()
    (folder / "model_code" / "__pycache__" / "load.cpython-311.pyc").write_bytes(b"planted")
    (folder / ".gitattributes").write_text("")
    verify(folder)
    with pytest.raises(ExportError, match="load.cpython-311.pyc is not listed"):
        verify(folder, beside=(".gitattributes",))


def test_an_export_that_fails_leaves_the_older_one_and_nothing_beside_it(exportables, tmp_path):
    one = exportables["classifier"]
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    before = (folder / "metadata.json").read_bytes()

    def fails(folder):
        (folder / "half").write_text("half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_folder(one, fails, to=folder)
    assert (folder / "metadata.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_older_export_is_replaced_whole(exportables, tmp_path):
    one = exportables["classifier"]
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    (folder / "left over").write_text("from before")
    assert write_folder(one, with_weights(one), to=folder) == folder
    assert not (folder / "left over").exists()
    verify(folder)


def test_a_run_s_empty_export_folder_is_where_it_goes(exportables):
    one = exportables["bert"]
    assert write_folder(one, lambda folder: {}) == one.run.path / "export"
    verify(one.run.path / "export")


def test_a_secret_in_the_run_s_files_is_not_exported(exportables, tmp_path, monkeypatch):
    one = exportables["classifier"]
    monkeypatch.setenv("HF_TOKEN", "hf_planted0123456789")
    report = one.run.path / "report.md"
    report.write_text("pushed with hf_planted0123456789")
    try:
        folder = write_folder(one, lambda folder: {"onnx": {"status": "fail hf_planted0123456789"}}, to=tmp_path / "e")
    finally:
        report.unlink()
    assert (folder / "run" / "report.md").read_text() == "pushed with ***"
    for path in folder.rglob("*"):
        assert not path.is_file() or b"hf_planted0123456789" not in path.read_bytes(), path


@pytest.mark.parametrize("kept", ["onnx", "pt2", "nothing"])
def test_of_a_model_whose_code_is_not_ours_the_example_runs_the_graph_that_is_there(exportables, tmp_path, kept):
    from dataclasses import replace

    one = replace(exportables["bert"], loader="weights", builds="", config={})
    part = one.parts[0]

    def fill(folder):
        if kept == "nothing":
            weights.write_safetensors(one, folder)
        else:
            free = torch.export.Dim.DYNAMIC
            shapes = tuple(dict.fromkeys(part.axes[name], free) for name in part.inputs)
            given = tuple(part.inputs.values())
            if kept == "onnx":
                pytest.importorskip("onnxruntime")
                torch.onnx.export(part.module, given, dynamo=True, dynamic_shapes=shapes, input_names=[*part.inputs],
                                  verbose=False).save(folder / "model.onnx")  # fmt: skip
            else:
                torch.export.save(torch.export.export(part.module, given, dynamic_shapes=shapes), folder / "model.pt2")
        return {}

    folder = write_folder(one, fill, to=tmp_path / "export")
    done = subprocess.run([sys.executable, "-I", folder / "load_example.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("embedding.weight" if kept == "nothing" else f"(2, 8, {one.model.head.out_features})") in done.stdout


def test_a_vae_s_example_draws_a_grid(exportables, tmp_path):
    from dataclasses import replace

    torch.manual_seed(0)
    model = BetaVAE(VAEConfig(channels=2, overall=4, colours=4, widths=(8, 8), blocks=(1, 1))).eval()
    one = replace(
        exportables["gpt"], kind="vae", model=model, builds="utils.vae.model:BetaVAE", tokenizer=None,
        config=model.config.model_dump(mode="json"),
    )  # fmt: skip
    folder = write_folder(one, with_weights(one), to=tmp_path / "export")
    done = subprocess.run([sys.executable, "-I", folder / "load_example.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn, decoded, _ = done.stdout.split("\n\n")
    canvas = model.sample(1, generator=torch.Generator().manual_seed(0))[0]
    expected = ["".join(str(int(cell)) for cell in row if cell < 10) for row in canvas if row[0] < 10]
    assert drawn.split("\n") == expected
    assert set(decoded) <= set("0123456789\n")


def test_config_json_of_ours_names_the_class_and_its_config(exported, exportables):
    config = json.loads((exported("gpt") / "config.json").read_text())
    assert config["architectures"] == ["GPT"]
    assert {name: config[name] for name in exportables["gpt"].config} == exportables["gpt"].config


def test_the_report_that_goes_along_names_no_folder_of_this_machine(exportables, rows_table, tmp_path):
    one = exportables["classifier"]
    report = one.run.path / "report.md"
    place = one.run.path
    report.write_text(f"evaluate {place}\ntrain {place}/config.yaml --root {place.parent}.\nsource: {rows_table}\n")
    try:
        folder = write_folder(one, lambda folder: {}, to=tmp_path / "e")
    finally:
        report.unlink()
    name = f"runs/{place.name}"
    expected = f"evaluate {name}\ntrain {name}/config.yaml --root runs.\nsource: {rows_table.name}\n"
    assert (folder / "run" / "report.md").read_text() == expected
