"""Small runs of every kind, trained for a few steps, and what there is to export of them."""

from __future__ import annotations

import json

import pytest
import torch

SHORT = {
    "max_steps": 6, "batch_size": 4, "warmup_steps": 2, "eval_every": 3, "eval_batches": 2, "sample_every": None,
    "log_every": 1, "device": "cpu", "precision": "fp32", "trackers": (),
}  # fmt: skip
COLOURS = ("red", "green", "blue", "white")
FILES = {
    "gpt": "gpt_wikitext", "bert": "bert_mlm", "t5": "t5_seq2seq", "classifier": "classifier", "gpt2": "gpt_wikitext",
}  # fmt: skip
TOKENIZERS = {
    "gpt": {"kind": "char"}, "t5": {"kind": "t5", "vocab_size": 380}, "bert": {"kind": "wordpiece", "vocab_size": 300},
    "classifier": {"kind": "wordpiece", "vocab_size": 300},
}  # fmt: skip


@pytest.fixture(scope="session")
def one_thread():
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rows_table(tmp_path_factory):
    """240 rows: a sentence, its colour as a text, and as a class."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows = [
        {"text": f"the {COLOURS[at % 4]} bird number {at} sings", "target": COLOURS[at % 4], "label": COLOURS[at % 4]}
        for at in range(240)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def gpt2_folder(rows_table, tmp_path_factory):
    """A GPT-2 and a tokenizer as `save_pretrained` leaves them, with nothing learned."""
    transformers = pytest.importorskip("transformers")
    from utils.data.tokenizers import BPETokenizer

    folder = tmp_path_factory.mktemp("gpt2")
    inner = BPETokenizer.train(rows_table.read_text(encoding="utf-8"), 300).inner
    end = BPETokenizer.END
    names = {"eos_token": end, "bos_token": end}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=inner.get_vocab_size(), **shape)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


class Made(dict):
    """Makes what is asked for when it is first asked for, and keeps it."""

    def __init__(self, make, names):
        super().__init__()
        self.make, self.names = make, names

    def __missing__(self, name):
        self[name] = self.make(name)
        return self[name]


@pytest.fixture(scope="session")
def publish_runs(rows_table, gpt2_folder, tmp_path_factory, one_thread):
    """Run by name: gpt, bert, t5, classifier, gpt2 (of transformers), each trained for 6 steps when first asked for."""
    from utils.training.recipe import load_recipe
    from utils.training.recipes import train

    def make(name):
        tokenizer = TOKENIZERS.get(name, {"kind": "hf", "name": str(gpt2_folder)})
        rows = {"source": str(rows_table), "tokenizer": tokenizer, "block_size": 16, "max_length": 16}
        recipe = load_recipe(f"{FILES[name]}_smoke").replace(rows=rows, train=SHORT)
        if name == "gpt2":
            recipe = recipe.replace(source={"name": f"hf:{gpt2_folder}"})
        return train(recipe, tmp_path_factory.mktemp(f"{name}-runs")).run

    return Made(make, tuple(FILES))


@pytest.fixture(scope="session")
def exportables(publish_runs):
    """`Exportable` by name, as `publish_runs`; an untrained one would do for most tests, and a real one costs little.

    Each lies in its session's own run: a test that writes an export gives another folder.
    """
    from utils.training.exportable import exportable_of

    return Made(lambda name: exportable_of(publish_runs[name]), tuple(FILES))


@pytest.fixture(scope="session")
def folders(exportables, tmp_path_factory):
    """Export folder by name, without graphs; written when first asked for, and not to be changed."""
    from utils.publish.folder import write_folder
    from utils.publish.weights import write_safetensors

    class Folders(dict):
        def __missing__(self, name):
            exportable = exportables[name]
            to = tmp_path_factory.mktemp(name) / "export"
            self[name] = write_folder(exportable, lambda folder: write_safetensors(exportable, folder) and {}, to=to)
            return self[name]

    return Folders()


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory):
    """What a handler reads of the export of a small VAE that has learned nothing."""
    from safetensors.torch import save_model

    from utils.publish.folder import seal
    from utils.vae.config import VAEConfig
    from utils.vae.model import BetaVAE

    folder, config = tmp_path_factory.mktemp("vae"), VAEConfig(architecture="dense", latents=8)
    torch.manual_seed(0)
    save_model(BetaVAE(config), str(folder / "model.safetensors"))
    about = {"format_version": 1, "name": "small VAE", "kind": "vae", "loader": "ours", "limits": {}}
    about |= {"builds": "utils.vae.model:BetaVAE", "config": config.model_dump(mode="json")}
    seal(folder, about)
    return folder
