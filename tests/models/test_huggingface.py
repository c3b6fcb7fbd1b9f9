"""Hugging Face models: folders written by `save_pretrained`, and the Hub's client against a local server."""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import threading

import huggingface_hub
import pytest
import torch
import transformers
from torch.testing import assert_close

from utils.models.source import SourceError, find, load

SIZES = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 11, "n_positions": 16}
SHAPE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 11}
COMMIT = "c" * 40


def gpt2() -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SIZES))


@pytest.fixture
def saved(tmp_path):
    model = gpt2()
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", model


def test_a_folder_with_safetensors_gives_its_weights(saved):
    folder, model = saved
    found = find(str(folder))
    assert (found.name, found.where) == (f"hf:{folder}", "hf")
    assert find(found.name) == found
    loaded = load(found)
    assert loaded.pretrained
    assert loaded.kind == "causal_lm"
    for name, value in model.state_dict().items():
        assert_close(loaded.model.state_dict()[name], value)
    assert "AutoModelForCausalLM for the architecture GPT2LMHeadModel; with the weights of" in loaded.chosen
    assert not torch.equal(loaded.build().transformer.wte.weight, model.transformer.wte.weight)


def test_sharded_weights_are_read(tmp_path):
    model = gpt2()
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load(find(str(tmp_path)))
    assert loaded.pretrained
    assert_close(loaded.model.transformer.wpe.weight, model.transformer.wpe.weight)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["transformer.wpe.weight"] = "evil.bin"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"names evil\.bin; expected files beside it, in \.safetensors"):
        load(find(str(tmp_path)))


def test_a_config_alone_gives_a_newly_initialised_model_and_says_so(saved):
    folder, _ = saved
    (folder / "model.safetensors").rename(folder / "other.gguf")
    before = torch.get_rng_state()
    one, two, other = (load(find(str(folder)), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not one.pretrained
    assert "newly initialised, as it has no model.safetensors" in one.chosen
    assert "other.gguf: not read" in one.chosen
    assert torch.equal(one.model.lm_head.weight, two.model.lm_head.weight)
    assert not torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)


def test_overrides_change_the_config_and_what_it_derives_and_unknown_ones_are_refused(tmp_path):
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    loaded = load(find(str(tmp_path)), overrides={"vocab_size": 7})
    assert loaded.model.lm_head.out_features == loaded.config["vocab_size"] == 7
    assert loaded.build().lm_head.out_features == 7
    with pytest.raises(SourceError, match="its config has no vocab; it has .*vocab_size"):
        load(find(str(tmp_path)), overrides={"vocab": 7})


def test_weights_that_do_not_fit_the_overrides_are_an_error_of_one_line(saved):
    with pytest.raises(SourceError, match="cannot be loaded") as error:
        load(find(str(saved[0])), overrides={"n_embd": 4})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SHAPE)), "masked_lm"),
        (lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**SHAPE)), "classifier"),
        (
            lambda: transformers.T5ForConditionalGeneration(
                transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=11)
            ),
            "seq2seq",
        ),
        (
            lambda: transformers.BartForConditionalGeneration(
                transformers.BartConfig(
                    **{
                        f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")
                    },
                    **{"d_model": 8, "vocab_size": 11, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8},
                )
            ),
            "seq2seq",  # its table entry for masked language models notwithstanding
        ),
        (
            lambda: transformers.ViTForImageClassification(
                transformers.ViTConfig(**{**SHAPE, "image_size": 8, "patch_size": 4})
            ),
            "image_classifier",
        ),
    ],
)
def test_the_architecture_gives_the_kind(tmp_path, model, kind):
    one = model()
    one.save_pretrained(tmp_path)
    loaded = load(find(str(tmp_path)))
    assert (loaded.kind, type(loaded.model)) == (kind, type(one))


def test_a_base_model_needs_a_kind_and_what_its_head_lacks_is_said(tmp_path):
    transformers.BertModel(transformers.BertConfig(**SHAPE)).save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"architectures \['BertModel'\], which names no kind; set kind to one of"):
        load(find(str(tmp_path)))
    loaded = load(find(str(tmp_path)), kind="classifier")
    assert type(loaded.model) is transformers.BertForSequenceClassification
    assert "newly initialised, as not in them: classifier.bias, classifier.weight" in loaded.chosen
    assert "not used: " in load(find(str(tmp_path)), kind="masked_lm").chosen  # the pooler


def test_pickled_weights_are_read_only_when_trusted(saved):
    folder, model = saved
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"weights \(pytorch_model\.bin\) are pickled.*tick trust_code"):
        load(find(str(folder)))
    loaded = load(find(str(folder)), trust_code=True)
    assert_close(loaded.model.transformer.wpe.weight, model.transformer.wpe.weight)


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

with open({marker!r}, "a") as file:
    file.write("ran")

class TinyConfig(PretrainedConfig):
    model_type = "tiny-of-nobody"
    def __init__(self, width=4, vocab_size=11, **kwargs):
        self.width, self.vocab_size = width, vocab_size
        super().__init__(**kwargs)

class Tiny(PreTrainedModel):
    config_class = TinyConfig
    def __init__(self, config):
        super().__init__(config)
        self.head = torch.nn.Linear(config.width, config.vocab_size)
        self.post_init()
"""


def test_code_in_the_repository_runs_only_when_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder, marker = tmp_path / "tiny", tmp_path / "marker"
    folder.mkdir()
    (folder / "modeling_tiny.py").write_text(CODE.format(marker=str(marker)))
    names = {"AutoConfig": "modeling_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.Tiny"}
    config = {"model_type": "tiny-of-nobody", "architectures": ["Tiny"], "auto_map": names, "width": 6}
    (folder / "config.json").write_text(json.dumps(config))
    found = find(str(folder))
    assert list(found.files) == ["modeling_tiny.py", "config.json"]
    with pytest.raises(SourceError, match="tick trust_code") as error:
        load(found)
    assert found.sha256["modeling_tiny.py"] in str(error.value)
    assert not marker.exists()
    loaded = load(found, trust_code=True, overrides={"vocab_size": 5})
    assert marker.exists()
    assert loaded.model.head.weight.shape == loaded.build().head.weight.shape == (5, 6)
    assert loaded.kind == "causal_lm"
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "other/repo--a.B"}}))
    with pytest.raises(SourceError, match="code from another repository"):
        load(find(str(folder)), trust_code=True)


def test_without_transformers_the_error_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SourceError, match="pip install transformers"):
        load(find(str(saved[0])))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceError, match="pip install transformers"):
        find("hf:gpt2")


def test_an_adapter_to_another_model_is_refused(saved):
    (saved[0] / "adapter_config.json").write_text('{"base_model_name_or_path": "other"}')
    with pytest.raises(SourceError, match="is an adapter to another model; merge it"):
        find(str(saved[0]))


@pytest.mark.parametrize("text", ["{", "[]", '{"auto_map": "x"}'])
def test_a_broken_config_is_said(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(
        SourceError, match=r"config\.json (of hf:|is not valid JSON: |holds a list; expected an object)"
    ):
        find(str(tmp_path))


def test_an_unknown_model_type_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "of-nobody"}')
    with pytest.raises(SourceError, match="cannot be loaded: ValueError: .*of-nobody"):
        load(find(str(tmp_path)), kind="causal_lm")


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """The Hub's API for one model, "ada/tiny"; gives the folder it serves and the paths that were asked for."""
    folder, seen = saved[0], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self, body=True):
            seen.append(self.path)
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:4] in (["api", "models", "ada", "tiny"],) and parts[4:] in ([], ["revision", "main"]):
                siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                answer, headers = {"_id": "1", "id": "ada/tiny", "sha": COMMIT, "siblings": siblings}, {}
                content = json.dumps(answer).encode()
            elif (
                parts[:3] == ["ada", "tiny", "resolve"]
                and parts[3] in ("main", COMMIT)
                and (folder / parts[4]).is_file()
            ):
                content = (folder / parts[4]).read_bytes()
                headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            else:
                code = "RevisionNotFound" if parts[:4] == ["api", "models", "ada", "tiny"] else "RepoNotFound"
                return self.answer(404, b"{}", {"X-Error-Code": code}, body)
            return self.answer(200, content, headers, body)

        def do_HEAD(self):
            self.do_GET(body=False)

        def answer(self, status, content, headers, body):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    yield folder, seen
    server.shutdown()
    server.server_close()


def test_a_model_on_the_hub_is_pinned_to_its_commit_and_its_weights_come_when_it_is_loaded(hub, saved, monkeypatch):
    folder, seen = hub
    found = find("ada/tiny")
    assert find("hf:ada/tiny", revision="main").facts["revision"] == COMMIT
    assert (found.name, found.facts["owner"], found.facts["revision"]) == ("hf:ada/tiny", "ada", COMMIT)
    assert not [path for path in seen if "safetensors" in path]
    loaded = load(found)
    assert [path for path in seen if "safetensors" in path]
    assert_close(loaded.model.transformer.wpe.weight, saved[1].transformer.wpe.weight)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = find("ada/tiny")
    assert "cache" in again.facts["hub"]
    assert again.facts["revision"] == COMMIT
    assert load(again).pretrained


def test_what_is_not_on_the_hub_is_one_line(hub):
    for source, options, message in (
        ("ada/none", {}, "hf:ada/none was not found on the Hugging Face Hub"),
        ("ada/tiny", {"revision": "gone"}, "at revision gone was not found: the repository has no such revision"),
    ):
        with pytest.raises(SourceError, match=message) as error:
            find(source, **options)
        assert "\n" not in str(error.value)


def test_offline_an_id_that_is_not_in_the_cache_is_an_error_and_one_without_its_weights_too(hub, monkeypatch):
    find("ada/tiny")  # leaves its config in the cache
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match="no answer from the Hugging Face Hub .* no copy in the cache"):
        find("ada/other")
    with pytest.raises(SourceError, match="its weights are not in the cache"):
        load(find("ada/tiny"))
