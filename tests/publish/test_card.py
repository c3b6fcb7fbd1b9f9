"""The model card says what metadata.json and the run say, in a form that the Hub's own client reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

huggingface_hub = pytest.importorskip("huggingface_hub")

from utils.publish.card import curves, model_card  # noqa: E402

METADATA = {
    "format_version": 1,
    "name": "shakespeare",
    "family": "language model",
    "kind": "causal_lm",
    "loader": "ours",
    "origin": "",
    "classes": [],
    "step": 1200,
    "metrics": {"validation/loss": 1.4697, "validation/accuracy": {"value": 0.5612, "low": 0.55, "high": 0.5724}},
    "limits": {"vocab_size": 65, "context_length": 256},
    "license": "Apache-2.0",
    "environment": {"python": "3.12.1", "torch": "2.13.0"},
    "git": {"commit": "0123456789abcdef0123", "dirty": True},
    "run": {"id": "20260801-101500-3f9a2c", "fingerprint": "aa"},
    "formats": {
        "onnx": {"status": "pass", "files": ["model.onnx"], "max_difference": 2.5e-6},
        "pt2": {"status": "fail"},
    },
    "files": {},
}
CONFIG = "name: shakespeare\ndata:\n  corpus: /home/ada/secret plans/play.txt\n  splits: [0.9, 0.05, 0.05]\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(CONFIG)
    return tmp_path


def read(text):
    card = huggingface_hub.ModelCard(text)
    return card.data, card.text


def test_the_front_matter_lists_task_tags_license_and_results_as_the_client_reads_them(folder):
    data, _ = read(model_card(folder, METADATA, "ada/shakespeare"))
    assert data.license == "apache-2.0"
    assert data.pipeline_tag == "text-generation"
    assert data.library_name == "pytorch"
    assert {"run-all", "causal-lm", "onnx"} <= set(data.tags)
    found = {one.metric_name: (one.metric_type, one.metric_value, one.dataset_split) for one in data.eval_results}
    assert found == {
        "validation/loss": ("loss", 1.4697, "validation"),
        "validation/accuracy": ("accuracy", 0.5612, "validation"),
    }
    assert {one.dataset_name for one in data.eval_results} == {"play.txt"}


def test_what_is_not_known_is_not_claimed(folder):
    bare = {**METADATA, "license": "", "metrics": {}, "environment": {}, "git": None, "formats": {}}
    data, text = read(model_card(folder, bare, "ada/shakespeare"))
    assert data.license is None
    assert data.eval_results is None
    assert "No license is stated" in text
    assert "None were measured" in text
    assert "![" not in text


def test_a_metric_that_is_no_number_is_in_no_list(folder):
    odd = {**METADATA, "metrics": {"validation/loss": float("nan"), "validation/accuracy": 0.5}}
    data, _ = read(model_card(folder, odd, "ada/shakespeare"))
    assert [one.metric_type for one in data.eval_results] == ["accuracy"]


def test_metrics_intervals_limits_and_formats_are_shown(folder):
    _, text = read(model_card(folder, METADATA, "ada/shakespeare", picture="curves.png"))
    assert "| validation/loss | 1.47 |" in text
    assert "| validation/accuracy | 0.5612 [0.55, 0.5724] |" in text
    assert "at most 256 tokens" in text
    assert "| onnx | `model.onnx` | pass | 2.5e-06 |" in text
    assert "| pt2 |  | fail |  |" in text
    assert "![Training curves](curves.png)" in text
    assert "commit 0123456789ab with changes" in text


def test_what_is_measured_is_given_in_its_own_unit_and_intervals_where_they_are(folder):
    def told(**changes):
        _, text = read(model_card(folder, {**METADATA, **changes}, "ada/model"))
        return text.partition("## Metrics")[2].partition("|")[0]

    assert "In nats a token: loss." in told()
    assert "95% intervals, where one was measured" in told()
    assert "No intervals were measured" in told(metrics={"validation/loss": 1.5})
    assert "In nats a text: loss." in told(kind="classifier", metrics={"validation/loss": 1.5})
    bounded = {"value": 0.25, "low": 0.125, "high": 0.5}
    policy = told(family="PPO", metrics={"validation/pass@1": bounded})
    assert "nats" not in policy
    assert "In brackets: 95% intervals." in policy
    grids = told(family="VAE", kind="vae", metrics={"validation/nll": 344.1, "validation/shape": 0.19})
    assert "In nats a grid: nll." in grids


def test_weights_that_are_not_the_best_are_not_called_so(folder):
    _, text = read(model_card(folder, METADATA, "ada/model"))
    assert "Of step 1,200, the best checkpoint." in text
    note = "The weights of step 1,200 stand in for step 900, which is damaged"
    _, text = read(model_card(folder, {**METADATA, "note": f"{note}."}, "ada/model"))
    assert f"the weights of step 1,200 of run `20260801-101500-3f9a2c`. {note}." in text
    assert "best" not in text.partition("## Settings")[0]


PPO = "name: arc\npool: {train: 400, validation: 16, test: 24, seed: 3}\npolicy: {kind: KIND, model: Qwen/Qwen2.5}\n"
ROWS = "rows:\n  source: hf:ada/letters\n  tokenizer: {kind: KIND, name: NAME}\n"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ROWS.replace("KIND", "bpe").replace("NAME", "null"), "65 ids and was made for the training data alone."),
        (ROWS.replace("KIND", "hf").replace("NAME", "openai-community/gpt2"), "is that of `openai-community/gpt2`."),
        (ROWS.replace("KIND", "saved").replace("NAME", "/home/ada/plans/words"), "65 ids and is that of `words`."),
        (PPO.replace("KIND", "tiny"), "65 ids and knows grids and programs alone."),
        (PPO.replace("KIND", "hub"), "65 ids and is that of `Qwen/Qwen2.5`."),
        (PPO.replace("KIND", "smollm2"), "65 ids and is that of `smollm2`."),
        ("name: shakespeare\n", "Its tokenizer has 65 ids."),
    ],
)
def test_a_tokenizer_is_said_to_be_what_the_recipe_made_it(config, words, folder):
    (folder / "run" / "config.yaml").write_text(config)
    _, text = read(model_card(folder, METADATA, "ada/model"))
    assert words in text
    assert ("for the training data alone" in text) == ("training data" in words)


def test_the_data_of_a_policy_are_drawn_and_not_called_by_its_name(folder):
    (folder / "run" / "config.yaml").write_text(PPO.replace("KIND", "tiny"))
    policy = {**METADATA, "family": "PPO", "metrics": {"validation/pass@1": 0.25}}
    data, text = read(model_card(folder, policy, "ada/arc"))
    assert [one.dataset_name for one in data.eval_results] == ["ARC tasks drawn from programs"]
    assert "with the seed 3: 400 for train, 16 for validation, 24 for test." in text
    assert "A policy that writes programs" in text
    (folder / "run" / "config.yaml").write_text("name: shakespeare\n")
    data, text = read(model_card(folder, METADATA, "ada/model"))
    assert {one.dataset_name for one in data.eval_results} == {"unknown"}
    assert "## Data\n\nNot stated." in text


def test_a_format_that_was_not_compared_is_not_said_to_be(folder):
    formats = {
        "onnx": {"status": "skip", "told": "not written: pip install onnx, then export again"},
        "pt2": {"status": "fail", "files": ["model.pt2"], "told": "differs | by 2", "max_difference": 2.0},
    }
    _, text = read(model_card(folder, {**METADATA, "formats": formats}, "ada/model"))
    assert "| onnx |  | skip: not written: pip install onnx, then export again |  |" in text
    assert "| pt2 | `model.pt2` | fail: differs \\| by 2 | 2 |" in text
    assert "Each was compared" not in text
    assert "What says pass was compared" in text


def test_where_a_local_file_lay_is_not_in_the_summary_of_the_data(folder):
    _, text = read(model_card(folder, METADATA, "ada/shakespeare"))
    data = text.partition("## Data")[2].partition("##")[0]
    assert "`play.txt`, split into 0.9, 0.05, 0.05" in data
    assert "/home/ada" not in data


@pytest.mark.parametrize("origin", ["hf:openai-community/gpt2", "hf:openai-community/gpt2@main"])
def test_a_model_that_was_trained_from_another_names_it(origin, folder):
    data, text = read(model_card(folder, {**METADATA, "origin": origin, "loader": "transformers"}, "ada/shakespeare"))
    assert data.base_model == "openai-community/gpt2"
    assert data.library_name == "transformers"
    assert f"trained from `{origin}`" in text


def test_the_origin_of_a_local_folder_is_no_base_model_of_the_hub(folder):
    data, _ = read(model_card(folder, {**METADATA, "origin": "hf:/home/ada/gpt2"}, "ada/shakespeare"))
    assert data.base_model is None


def test_equal_folders_make_equal_cards_and_curves(exportables, tmp_path):
    from utils.publish.folder import read_metadata, write_folder

    one = write_folder(exportables["gpt"], lambda folder: {}, to=tmp_path / "one")
    for picture in (one / "run" / "figures").glob("curves.png"):
        picture.unlink()
    metadata = read_metadata(one)
    assert model_card(one, metadata, "ada/gpt") == model_card(one, metadata, "ada/gpt")
    picture = curves(one)
    assert picture.startswith(b"\x89PNG")
    assert picture == curves(one)


@pytest.mark.parametrize("name", ["gpt", "classifier"])
def test_the_code_that_loads_it_runs_in_a_process_of_its_own(name, exportables, tmp_path):
    """With a stand-in for the download alone, which `test_hub` covers."""
    from utils.publish.folder import read_metadata, write_folder
    from utils.publish.weights import write_safetensors

    def fill(folder):
        write_safetensors(exportables[name], folder)
        return {}

    folder = write_folder(exportables[name], fill, to=tmp_path / "export")
    text = model_card(folder, read_metadata(folder), "ada/model")
    code = re.search(r"```python\n(from huggingface_hub import snapshot_download\n.*?)```", text, re.DOTALL)[1]
    assert 'snapshot_download("ada/model")' in code
    line = "from huggingface_hub import snapshot_download\n"
    code = code.replace(line, f"snapshot_download = {{'ada/model': {json.dumps(str(folder))}}}.get\n")
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
