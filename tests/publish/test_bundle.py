"""The copied code loads the model where the repository is not, with the same numbers bit for bit."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from utils.publish import bundle, weights
from utils.publish.folder import write_folder
from utils.vae.config import VAEConfig
from utils.vae.model import BetaVAE

CHILD = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("utils", "transformers", "lightning_fabric", "matplotlib", "pandas"):
            raise ModuleNotFoundError(f"{name} is refused")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
import torch
from safetensors.torch import load_file, save_file
from model_code.load import load
torch.set_num_threads(1)
before = torch.get_rng_state()
model, tokenizer, metadata = load(sys.argv[1])
assert torch.equal(before, torch.get_rng_state()) and not model.training
given = load_file(sys.argv[2])
names = sys.argv[4].split(",")
with torch.no_grad():
    out = model.encode(given["grids"])[0] if names == ["grids"] else model(*(given[name] for name in names))
save_file({"out": out.contiguous()}, sys.argv[3])
print(type(tokenizer).__name__, [] if tokenizer is None else list(map(int, tokenizer.encode(metadata["text"]))))
"""


def answered(folder, given, tmp_path, text=""):
    """What a fresh process, in which `utils` cannot be imported, makes of inputs; and what it printed."""
    import json

    from safetensors.torch import load_file, save_file

    about = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({**about, "text": text}))
    save_file(given, tmp_path / "in.safetensors")
    command = [sys.executable, "-I", "-c", CHILD, folder, tmp_path / "in.safetensors", tmp_path / "out.safetensors"]
    done = subprocess.run([*map(str, command), ",".join(given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(tmp_path / "out.safetensors")["out"], done.stdout.strip()


def written(exportable, folder):
    """The export folder with the weights alone."""

    def fill(inside):
        weights.write_safetensors(exportable, inside)
        return {}

    return write_folder(exportable, fill, to=folder)


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "classifier"])
def test_a_fresh_process_without_our_package_gives_the_same_logits_bit_for_bit(exportables, tmp_path, name):
    one = exportables[name]
    given = dict(one.parts[0].others[1])  # ragged
    if name == "t5":
        mask = given.pop("attention_mask")
        given |= {"decoder_input_ids": one.parts[1].others[1]["decoder_input_ids"], "attention_mask": mask}
    with torch.no_grad():
        expected = one.model(*given.values())
    text = "red bird" if name != "gpt" else "the red bird"
    found, printed = answered(written(one, tmp_path / "export"), given, tmp_path, text)
    assert torch.equal(found, expected)
    from utils.data.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(one.tokenizer)
    assert printed == f"{type(tokenizer).__name__} {tokenizer.encode(text).tolist()}"


def test_a_vae_comes_back_without_a_tokenizer(exportables, tmp_path):
    torch.manual_seed(0)
    model = BetaVAE(VAEConfig(channels=2, overall=4, colours=4, widths=(8, 8), blocks=(1, 1))).eval()
    one = replace(
        exportables["gpt"], kind="vae", model=model, builds="utils.vae.model:BetaVAE", tokenizer=None,
        config=model.config.model_dump(mode="json"),
    )  # fmt: skip
    grids = torch.full((2, 30, 30), 10)
    grids[0, :3, :4], grids[1, :9, :9] = 1, torch.arange(81).view(9, 9) % 10
    found, printed = answered(written(one, tmp_path / "export"), {"grids": grids}, tmp_path)
    with torch.no_grad():
        assert torch.equal(found, model.encode(grids)[0])
    assert printed == "NoneType []"


def test_the_copy_holds_the_code_of_its_own_model_and_none_of_training(exportables, tmp_path):
    files = bundle.write_code(exportables["bert"], tmp_path)
    code = {path.relative_to(tmp_path / "model_code").as_posix() for path in files}
    models = {name for name in code if name.startswith("models/")} - {"models/__init__.py"}
    assert models == {f"models/{name}.py" for name in ("bert", "blocks", "model", "named", "positions", "transformer")}
    assert {name.partition("/")[0] for name in code} == {"LICENSE", "__init__.py", "load.py", "core", "data", "models"}
    assert {"core/config.py", "data/special.py", "data/tokenizers.py"} <= code
    assert len(code) < 25


def test_no_file_of_the_copy_imports_our_package_by_its_name(exportables, tmp_path):
    for path in bundle.write_code(exportables["gpt"], tmp_path):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in named if name.partition(".")[0] == "utils"], path


@pytest.fixture
def written_package(tmp_path, monkeypatch):
    """Files as if they were ours."""

    def write(**files):
        for name, text in files.items():
            path = tmp_path / "utils" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(bundle, "UTILS", tmp_path / "utils")

    return write


def test_imports_are_followed_into_functions_and_packages_but_not_for_type_checkers(written_package):
    written_package(
        a__one="from typing import TYPE_CHECKING\nfrom utils.a import two\nif TYPE_CHECKING:\n    import pandas\n"
        "    from utils.b.never import X\n",
        a__two="import numpy as np\ndef f():\n    import scipy\n    from utils.b.three import g\n    return g\n",
        b__three="import json\n",
        b__never="X = 1\n",
    )
    assert bundle.closure(["utils.a.one"]) == ["utils.a.one", "utils.a.two", "utils.b.three"]
    assert bundle.third_party(bundle.closure(["utils.a.one"])) == {"numpy"}  # scipy is not needed to import it
    assert bundle.relative("utils.a.one").splitlines()[1] == "from ..a import two"
    assert bundle.relative("utils.a.two").splitlines()[3] == "    from ..b.three import g"


def test_an_import_that_cannot_be_made_relative_is_refused(written_package):
    written_package(a__one="import utils.b.two as two\n")
    with pytest.raises(ValueError, match="import utils.b.two as two.*write from utils"):
        bundle.relative("utils.a.one")
