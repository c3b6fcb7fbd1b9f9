"""The handler on real export folders: what it answers, that rows together are rows alone, what it refuses."""

import dataclasses
import importlib.util
import inspect
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch

from utils.models.generate import SamplingConfig, generate
from utils.publish.folder import write_folder
from utils.publish.graphs import Graph, file_of
from utils.publish.handling.checks import BadRequest, FolderError, TooLong
from utils.publish.handling.decoding import choose
from utils.publish.handling.endpoint import EndpointHandler
from utils.publish.handling.sampling import Bounds
from utils.publish.loading import load


@pytest.fixture(scope="session")
def handlers(folders):
    class Handlers(dict):
        def __missing__(self, name):
            self[name] = EndpointHandler(folders[name])
            return self[name]

    return Handlers()


PROMPTS = ["the red", "t", "the blue bird n", "green bird"]


def texts(handler, inputs, **parameters):
    return [one["generated_text"] for one in handler({"inputs": inputs, "parameters": parameters})]


@pytest.mark.parametrize("name", ["gpt", "gpt2", "t5"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 1.2, "seed": 3},
        {"temperature": 0.9, "top_k": 5, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.3},
    ],
)
def test_every_row_of_a_batch_is_what_its_prompt_alone_gives(handlers, name, parameters):
    together = texts(handlers[name], PROMPTS, max_new_tokens=12, **parameters)
    assert together == [texts(handlers[name], one, max_new_tokens=12, **parameters)[0] for one in PROMPTS]
    assert any(together)


def test_greedy_text_is_that_of_our_own_generation(handlers, exportables):
    exportable = exportables["gpt"]
    from utils.data.tokenizers import load_tokenizer

    config = SamplingConfig(max_new_tokens=40, temperature=0)  # past the 16 tokens of the context
    ours = generate(exportable.model, load_tokenizer(exportable.tokenizer), PROMPTS[:1], config)
    assert texts(handlers["gpt"], PROMPTS[:1], max_new_tokens=40) == ours


def test_greedy_text_of_a_gpt2_is_that_of_transformers(handlers, folders):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (kind.from_pretrained(folders["gpt2"]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
        assert texts(handlers["gpt2"], prompt, max_new_tokens=8) == [tokenizer.decode(made, skip_special_tokens=True)]


def test_greedy_answers_of_a_t5_are_those_that_training_judges(handlers, exportables):
    from utils.data.special import special_of
    from utils.data.tokenizers import load_tokenizer
    from utils.training.generation import generate_seq2seq

    tokenizer = load_tokenizer(exportables["t5"].tokenizer)
    special = special_of(tokenizer)
    ids = special.around(tokenizer.encode("the red bird"))
    batch = {"input_ids": torch.tensor(ids)[None]}
    limits = {"start_id": special.padding, "eos_id": special.end, "max_new_tokens": 10}
    made = generate_seq2seq(exportables["t5"].model, batch, **limits)[0]
    expected = tokenizer.decode([one for one in made if one not in (special.padding, special.end)])
    assert texts(handlers["t5"], "the red bird", max_new_tokens=10) == [expected]


def test_a_stream_is_the_text_in_pieces(handlers):
    data = {"inputs": "the red", "parameters": {"max_new_tokens": 20, "temperature": 1.0, "seed": 1, "details": True}}
    whole = handlers["gpt"](data)[0]
    events = list(handlers["gpt"].stream(data))
    assert "".join(event["token"]["text"] for event in events) == whole["generated_text"]
    assert events[-1]["generated_text"] == whole["generated_text"]
    assert [event["token"]["id"] for event in events] == [one["id"] for one in whole["details"]["tokens"]]
    assert [event["details"] for event in events[:-1]] == [None] * 19
    assert events[-1]["details"] == {"finish_reason": "length", "generated_tokens": 20, "seed": 1}


def test_a_stop_text_ends_the_result_and_no_stream_tells_part_of_it(handlers):
    free = texts(handlers["gpt"], "the red", max_new_tokens=20)[0]
    stop = free[5:8]
    data = {"inputs": "the red", "parameters": {"max_new_tokens": 20, "stop": [stop], "details": True}}
    answer = handlers["gpt"](data)[0]
    assert answer["generated_text"] == free[: free.find(stop)]
    assert answer["details"]["finish_reason"] == "stop_sequence"
    assert "".join(event["token"]["text"] for event in handlers["gpt"].stream(data)) == answer["generated_text"]


def test_sampled_tokens_follow_the_models_probabilities(handlers):
    """3200 first tokens against softmax(logits / 2): each share lies within 4.5 standard errors of its probability."""
    handler = handlers["gpt"]
    request = handler.read({"inputs": "the red"})
    ids = torch.tensor(request.rows[0].ids)[None]
    with torch.no_grad():
        chances = (handler.model.module(ids)[0, -1] / 2).softmax(-1)
    counts = torch.zeros_like(chances)
    for first in range(100):
        drawn = [{"max_new_tokens": 1, "temperature": 2, "seed": seed} for seed in range(32 * first, 32 * first + 32)]
        rows = [handler.read({"inputs": "the red", "parameters": one}).rows[0] for one in drawn]
        list(handler.decode(rows))
        for row in rows:
            counts[row.tokens[0]] += 1
    errors = (chances * (1 - chances) / 3200).sqrt()
    assert ((counts / 3200 - chances).abs() <= 4.5 * errors + 1e-9).all()


def test_the_coldest_temperature_takes_the_likeliest_tokens_however_large_the_logits(handlers):
    cold = texts(handlers["gpt"], "the red", max_new_tokens=12, temperature=1e-4, seed=0)
    assert cold == texts(handlers["gpt"], "the red", max_new_tokens=12)
    row = handlers["gpt"].read({"inputs": "the red", "parameters": {"temperature": 1e-4, "seed": 0}}).rows[0]
    assert choose(torch.tensor([-3e38, 1e38, 3e38, 0.0]), row) == 2  # divided by 1e-4, three of these are infinite


def test_a_row_whose_text_cannot_be_told_is_as_it_was_and_goes_on(handlers):
    data = {"inputs": "the red", "parameters": {"max_new_tokens": 4}}
    row = handlers["gpt"].read(data).rows[0]
    row.watched = True
    read, failing = row.decode, [False, False, False, True]

    def decode(tokens):
        if failing.pop(0):
            raise RuntimeError("the tokenizer is busy")
        return read(tokens)

    row.decode = decode
    with pytest.raises(RuntimeError, match="busy"):
        list(handlers["gpt"].decode([row]))
    assert (len(row.tokens), row.finish) == (3, None)  # the fourth would have been the last
    row.decode = read
    list(handlers["gpt"].decode([row]))
    assert row.result() == handlers["gpt"](data)[0]


def test_a_drawn_seed_is_told_and_gives_the_text_again(handlers):
    parameters = {"max_new_tokens": 20, "temperature": 1.5, "details": True}
    first = handlers["gpt"]({"inputs": "the", "parameters": parameters})[0]
    again = {**parameters, "seed": first["details"]["seed"]}
    assert handlers["gpt"]({"inputs": "the", "parameters": again})[0] == first
    other = handlers["gpt"]({"inputs": "the", "parameters": parameters})[0]
    assert other["details"]["seed"] != first["details"]["seed"]


def test_a_full_text_begins_with_the_prompt_and_an_empty_prompt_is_answered(handlers):
    free = texts(handlers["gpt"], "the red", max_new_tokens=5)[0]
    assert texts(handlers["gpt"], "the red", max_new_tokens=5, return_full_text=True) == ["the red" + free]
    assert len(texts(handlers["gpt"], "", max_new_tokens=5)[0]) == 5


def test_probabilities_of_a_classifier_are_those_of_its_model(handlers, exportables):
    inputs = ["the red bird number 1 sings", "blue"]
    answer = handlers["classifier"]({"inputs": inputs})
    from utils.data.special import special_of
    from utils.data.tokenizers import load_tokenizer

    exportable = exportables["classifier"]
    tokenizer = load_tokenizer(exportable.tokenizer)
    for text, rows in zip(inputs, answer):
        ids = torch.tensor(special_of(tokenizer).around(tokenizer.encode(text)))[None]
        with torch.no_grad():
            scores = exportable.model(ids).softmax(-1)[0]
        assert {row["label"]: row["score"] for row in rows} == pytest.approx(
            dict(zip(exportable.classes, scores.tolist())), abs=1e-5
        )
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    best = handlers["classifier"]({"inputs": inputs[0], "parameters": {"top_k": 1}})
    assert best[0][0]["label"] == answer[0][0]["label"]
    assert len(best[0]) == 1


def test_a_mask_is_filled_with_the_models_likeliest_tokens(handlers, exportables):
    answer = handlers["bert"]({"inputs": "the [MASK] bird", "parameters": {"top_k": 4}})
    from utils.data.special import special_of
    from utils.data.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(exportables["bert"].tokenizer)
    special = special_of(tokenizer)
    ids = torch.tensor(special.around(tokenizer.encode("the [MASK] bird")))
    with torch.no_grad():
        scores = exportables["bert"].model(ids[None])[0, (ids == special.mask).nonzero()[0, 0]].softmax(-1)
    assert [row["token"] for row in answer] == scores.topk(4).indices.tolist()
    assert [row["score"] for row in answer] == pytest.approx(scores.topk(4).values.tolist(), abs=1e-6)
    assert answer[0]["sequence"].split() == ["the", *answer[0]["token_str"].split(), "bird"]
    two = handlers["bert"]({"inputs": ["[MASK] [MASK]", "a [MASK]"]})
    assert [len(one) for one in two] == [2, 5]  # a list a mask; five rows of the one mask


@pytest.mark.parametrize("name", ["gpt", "bert", "t5", "classifier", "gpt2"])
def test_an_embedding_is_the_mean_over_the_tokens_whatever_pads_the_row(handlers, name):
    handler = handlers[name]
    inputs = ["the red bird", "the"]
    together = handler({"task": "feature-extraction", "inputs": inputs})
    for text, vector in zip(inputs, together):
        assert vector == pytest.approx(handler({"task": "feature-extraction", "inputs": text})[0], abs=1e-5)
    ids = torch.tensor([handler.reader.around(inputs[0], cut=False)])
    with torch.no_grad():
        mean = handler.model.hidden(ids, torch.ones_like(ids)).mean(1)[0]
    assert together[0] == pytest.approx(mean.tolist(), abs=1e-5)
    unit = handler({"task": "feature-extraction", "inputs": inputs[0], "normalize": True})[0]
    assert math.fsum(one * one for one in unit) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("hello", "expected an object"),
        ({}, "inputs=None"),
        ({"inputs": 3}, "inputs=3; expected a text"),
        ({"inputs": []}, "expected a text, or a list of texts"),
        ({"inputs": ["a", 1]}, "expected a text, or a list of texts"),
        ({"inputs": "the", "parameters": [1]}, "parameters=[1]; expected an object"),
        ({"inputs": "the", "parameters": {"temprature": 1}}, "'temprature' came, which are not read"),
        ({"inputs": "the", "inptus": "the"}, "keys 'inptus' came"),
        ({"inputs": "the", "parameters": {"temperature": -1}}, "temperature=-1; expected a number from 0"),
        ({"inputs": "the", "parameters": {"temperature": True}}, "temperature=True"),
        ({"inputs": "the", "parameters": {"temperature": math.nan}}, "temperature=nan"),
        ({"inputs": "the", "parameters": {"temperature": 1e-40}}, "temperature=1e-40; expected at least 0.0001, or 0"),
        ({"inputs": "the", "parameters": {"top_p": 0}}, "top_p=0 leaves no token"),
        ({"inputs": "the", "parameters": {"top_k": 1.5}}, "top_k=1.5; expected a whole number"),
        ({"inputs": "the", "parameters": {"max_new_tokens": 0}}, "max_new_tokens=0; expected a whole number from 1"),
        ({"inputs": "the", "parameters": {"max_new_tokens": 1025}}, "from 1 to 1,024"),
        ({"inputs": "the", "parameters": {"stop": ""}}, "expected a list of at most 16 texts"),
        ({"inputs": "the", "parameters": {"do_sample": False, "top_k": 3}}, "do_sample=false"),
        ({"inputs": "the", "parameters": {"seed": 2**64}}, "seed=18446744073709551616"),
        ({"inputs": "the", "task": "fill-mask"}, "this causal_lm does text-generation, feature-extraction"),
        ({"inputs": "\ud800"}, "half a surrogate pair"),
        ({"inputs": "\u4e2d"}, "The tokenizer cannot read"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_what_was_expected(handlers, data, told):
    with pytest.raises(BadRequest) as caught:
        handlers["gpt"](data)
    assert told in str(caught.value)


def test_more_than_the_bounds_allow_is_refused(handlers):
    with pytest.raises(TooLong, match="17 tokens came; at most 16 are read: shorten the prompt, or set truncate"):
        handlers["gpt"]({"inputs": "t" * 17})
    cut = {"inputs": "t" * 9 + "the red", "parameters": {"truncate": 7}}
    assert handlers["gpt"](cut)[0] == handlers["gpt"]({"inputs": "the red"})[0]
    with pytest.raises(TooLong, match="33 inputs came; at most 32"):
        handlers["gpt"]({"inputs": ["the"] * 33})
    with pytest.raises(TooLong, match="100,001 characters came"):
        handlers["gpt"]({"inputs": "t" * 100_001})


def test_a_row_that_is_cancelled_leaves_and_the_others_go_on(handlers):
    handler = handlers["gpt"]
    alone = texts(handler, PROMPTS[:2], max_new_tokens=10)
    rows = handler.read({"inputs": [*PROMPTS[:2], "the"], "parameters": {"max_new_tokens": 10}}).rows
    for step, advanced in enumerate(handler.decode(rows)):
        assert len(advanced) == (3 if step < 3 else 2)
        if step == 2:
            rows[2].finish = "cancelled"
    assert [row.text for row in rows[:2]] == alone
    assert len(rows[2].tokens) == 3


def test_a_row_goes_on_from_the_tokens_that_it_has(handlers):
    for name in ("gpt", "gpt2", "t5"):
        data = {"inputs": "the red", "parameters": {"max_new_tokens": 9, "temperature": 1, "seed": 5}}
        row = handlers[name].read(data).rows[0]
        steps = handlers[name].decode([row])
        for _ in range(4):
            next(steps)
        list(handlers[name].decode([row]))
        assert row.result() == handlers[name](data)[0]


def test_the_copied_handler_answers_in_a_process_without_utils(handlers, folders):
    """As Inference Endpoints load it: handler.py of the folder, by its path, `utils` out of reach."""
    script = """
import importlib.util, json, sys
sys.modules["utils"] = None
for folder in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
    handler = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = handler
    spec.loader.exec_module(handler)
    print(json.dumps(handler.EndpointHandler(folder)({"inputs": "the red", "parameters": {"max_new_tokens": 9}})))
"""
    both = [folders[name] for name in ("gpt", "gpt2")]
    command = [sys.executable, "-I", "-c", script, *map(str, both)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = [handlers[name]({"inputs": "the red", "parameters": {"max_new_tokens": 9}}) for name in ("gpt", "gpt2")]
    assert [json.loads(line) for line in run.stdout.splitlines()[-2:]] == expected


def test_the_copies_of_two_folders_do_not_share_modules(folders, tmp_path):
    """Of two exports, one may be of an older version: each folder's handler.py takes the `handling` beside it."""
    places = []
    for name in ("one", "two"):
        shutil.copytree(folders["gpt"], tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        spec = importlib.util.spec_from_file_location("handler", tmp_path / name / "handler.py")
        handler = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(handler)
        places.append(inspect.getfile(handler.EndpointHandler))
    assert places == [str(tmp_path / name / "handling" / "endpoint.py") for name in ("one", "two")]


def test_the_file_that_is_copied_is_the_installed_handler_too():
    from utils.publish import handler

    assert handler.EndpointHandler is EndpointHandler


def test_two_folders_with_code_of_their_own_are_loaded_side_by_side(handlers):
    modules = {type(handlers[name].model.module).__module__.partition(".")[0] for name in ("gpt", "bert")}
    assert len(modules) == 2
    assert "utils" not in modules


def test_a_folder_that_cannot_be_served_says_why(folders, tmp_path):
    with pytest.raises(FolderError, match=r"has no metadata\.json"):
        EndpointHandler(tmp_path)
    about = json.loads((folders["gpt"] / "metadata.json").read_text(encoding="utf-8"))
    for changed, told in (
        ({"loader": "weights"}, r"expected model\.onnx, .* or model\.pt2"),
        ({"kind": "image_classifier"}, "kind 'image_classifier' cannot be served"),
        ({}, r"model_code/load\.py is not there"),
    ):
        (tmp_path / "metadata.json").write_text(json.dumps(about | changed), encoding="utf-8")
        with pytest.raises(FolderError, match=told):
            EndpointHandler(tmp_path)


def test_weights_that_give_nan_raise_instead_of_answering(folders):
    handler = EndpointHandler(folders["gpt"], Bounds())
    with torch.no_grad():
        handler.model.module.norm.weight.fill_(math.nan)
    for task in handler.tasks:
        with pytest.raises(ArithmeticError, match="NaN"):
            handler({"inputs": "the", "task": task})


GRIDS = [[[1, 2, 3], [4, 5, 6]], [[0]], [[7] * 30] * 30]


def test_grids_are_drawn_from_the_prior_and_a_seed_gives_them_again(vae_folder):
    handler = EndpointHandler(vae_folder, load=load)
    answer = handler({"inputs": "", "parameters": {"n": 3, "seed": 5}})
    model = handler.model.module
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        heights, widths = model.decode(z).likeliest_sizes()
        canvases = model.sample(3, generator=torch.Generator().manual_seed(5))
    expected = [canvas[:h, :w].tolist() for canvas, h, w in zip(canvases, heights.tolist(), widths.tolist())]
    assert answer["grids"] == expected
    assert answer["seed"] == 5
    drawn = handler({"inputs": ""})
    assert handler({"inputs": None, "parameters": {"seed": drawn["seed"]}}) == drawn


def test_grids_are_reconstructed_alike_alone_and_together(vae_folder):
    handler = EndpointHandler(vae_folder, load=load)
    requests = [handler.read({"inputs": grid}) for grid in GRIDS]
    together = handler({"inputs": GRIDS})
    assert [one["grids"][0] for one in handler.run(requests)] == together["grids"]
    canvas = torch.full((1, 30, 30), 10, dtype=torch.uint8)
    canvas[0, :2, :3] = torch.tensor(GRIDS[0])
    made = handler.model.module.reconstruct({"grids": canvas})[0]
    assert together["grids"][0] == [[cell for cell in row if cell != 10] for row in made.tolist() if row[0] != 10]
    assert together["exact"] == [one == other for one, other in zip(together["grids"], GRIDS)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"inputs": [[1, 2], [3]]}, "all rows alike"),
        ({"inputs": [[1, 12]]}, "a cell 12; expected colours 0 to 9"),
        ({"inputs": [[1, True]]}, "a cell True"),
        ({"inputs": [[1] * 31]}, "1 to 30 rows of 1 to 30 cells"),
        ({"inputs": [[[1]]] * 65}, "65 grids"),
        ({"inputs": "grid"}, "expected a grid"),
        ({"inputs": "", "parameters": {"n": 65}}, "n=65; expected a whole number from 1 to 64"),
        ({"inputs": [[1]], "task": "grid-sampling"}, "sampling reads none"),
    ],
)
def test_a_grid_that_is_none_is_refused(vae_folder, data, told):
    with pytest.raises(BadRequest) as caught:
        EndpointHandler(vae_folder, load=load)(data)
    assert told in str(caught.value)


@pytest.mark.parametrize(("name", "ending"), [("gpt", "pt2"), ("classifier", "pt2"), ("t5", "onnx")])
def test_a_model_whose_code_stays_away_answers_by_its_graph_as_by_its_code(
    handlers, exportables, tmp_path, name, ending
):
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    exportable = dataclasses.replace(exportables[name], loader="weights", builds="", config={})

    def fill(folder):
        for part in exportable.parts:
            path = folder / file_of(ending, part)
            (Graph(part).write_onnx if ending == "onnx" else Graph(part).write_pt2)(path)
        return {}

    handler = EndpointHandler(write_folder(exportable, fill, to=tmp_path / "export"))
    assert {"onnx": "ONNX", "pt2": "torch.export"}[ending] in handler.info()["read_with"]
    data = {"inputs": PROMPTS}
    if name == "classifier":
        mine, own = handler(data), handlers[name](data)
        assert [[row["label"] for row in rows] for rows in mine] == [[row["label"] for row in rows] for rows in own]
        flat = [row["score"] for rows in mine for row in rows]
        assert flat == pytest.approx([row["score"] for rows in own for row in rows], abs=1e-4)
    else:
        data["parameters"] = {"max_new_tokens": 24, "temperature": 1, "seed": 2}  # past the context of 16
        assert handler(data) == handlers[name](data)
    with pytest.raises(BadRequest, match="task 'feature-extraction' came"):
        handler({"inputs": "the", "task": "feature-extraction"})
