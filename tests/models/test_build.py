"""Which class of a file is its model, what its constructor is given, and what happens where either fails."""

from __future__ import annotations

import inspect
import json
import random
import sys

import numpy
import pytest
import torch
from torch.testing import assert_close

from utils.models.exported import merge, read_config
from utils.models.source import SourceError, find, load

HEAD = "from dataclasses import dataclass, field\nimport torch\nfrom torch import nn\n"


@pytest.fixture
def make(tmp_path):
    """Write model.py (and other files) and config.json, and load them."""

    def loaded(code, config=None, files=None, **options):
        (tmp_path / "model.py").write_text(HEAD + code)
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return load(find(str(tmp_path)), **options)

    return loaded


def module(name, init="self", body="pass", base="nn.Module"):
    return f"class {name}({base}):\n    def __init__({init}):\n        super().__init__()\n        {body}\n"


def refusal(make, *arguments, **options) -> str:
    with pytest.raises(SourceError) as error:
        make(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# Which class


def test_build_model_comes_before_model_name_and_model_name_before_the_unused_class(make):
    classes = module("A") + module("B", body="self.a = A()")
    assert type(make(classes).model).__name__ == "B"
    assert type(make(classes, {"model_name": "A"}).model).__name__ == "A"
    assert type(make(classes, overrides={"model_name": "B"}).model).__name__ == "B"
    loaded = make(classes + "def build_model(): return A()\n", {"model_name": "B"})
    assert type(loaded.model).__name__ == "A"
    assert loaded.chosen.startswith("build_model, the function")


def test_a_model_name_that_names_nothing_is_said_and_passed_over(make):
    chosen = make(module("A") + module("B", body="self.a = A()"), {"model_name": "My model"}).chosen
    assert chosen.startswith("B, the one nn.Module that no other one uses")
    assert "model_name is 'My model', which names no nn.Module of model.py" in chosen
    # torch's own classes are none of the file's
    assert "names no nn.Module" in make("from torch.nn import Linear\n" + module("A"), {"model_name": "Linear"}).chosen


@pytest.mark.parametrize(
    "use",
    [
        module("Model", body="self.part = Part()"),
        module("Model", base="Part"),
        "def parts(): return [Part() for _ in range(2)]\n" + module("Model", body="self.p = nn.ModuleList(parts())"),
        "PARTS = {'part': Part}\n" + module("Model", body="self.part = PARTS['part']()"),
        "if True:\n    Alias = Part\n" + module("Model", body="self.part = Alias()"),
        module("Model", body="self.part = Part()") + "model = Model()\n",
        module("Model", body="self.part = Part()") + "def main(): return Model(), Part()\n",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_model_is_the_class_that_no_other_class_uses_in_any_way_and_order(make, use, first):
    part = module("Part")
    if not first and "(Part)" not in use and "PARTS" not in use and "Alias" not in use and "model =" not in use:
        part, use = use, part
    assert type(make(part + use).model).__name__ == "Model"


def test_two_candidates_a_cycle_or_none_is_an_error_that_lists_them(make):
    assert "more than one could be the model: A, B. Set model_name" in refusal(make, module("A") + module("B"))
    cycle = module("A", body="self.b = B") + module("B", body="self.a = A")
    assert "every nn.Module is used by another one: A, B." in refusal(make, cycle)
    assert "defines no nn.Module" in refusal(make, "x = 1\n")
    assert "build_model() gave a dict; expected a torch.nn.Module" in refusal(make, "def build_model(): return {}\n")


# What it is given

SIZES = "self.embedding = nn.Embedding(vocab_size, d_model)"


def test_keywords_are_those_the_signature_names_and_the_others_are_said(make):
    code = module("M", "self, vocab_size, d_model=4, dropout=0.5", SIZES)
    loaded = make(code, {"vocab_size": 7, "nhead": 2, "model_name": "M"})
    assert loaded.model.embedding.weight.shape == (7, 4)
    assert "called with vocab_size=7; nothing took nhead of the config." in loaded.chosen
    text = refusal(make, code, {"d_model": 8})
    assert "M() needs vocab_size, which the config lacks; it has d_model." in text


@pytest.mark.parametrize(
    "init", ["self, vocab_size, /, d_model", "self, *args, vocab_size, d_model=4", "self, vocab_size, **kwargs"]
)
def test_positional_and_variable_parameters_are_filled_too(make, init):
    body = "self.size = vocab_size, locals().get('d_model') or kwargs['d_model']"
    assert make(module("M", init, body), {"vocab_size": 7, "d_model": 8, "model_name": "M"}).model.size == (7, 8)


def test_a_class_without_a_constructor_of_its_own_is_given_nothing(make):
    loaded = make("class M(nn.Module):\n    def forward(self, x):\n        return x\n", {"d_model": 8})
    assert "called with no arguments; nothing took d_model" in loaded.chosen


FIELDS = "    vocab_size: int\n    d_model: int = 4\n"
CONFIG = FIELDS + "    layers: list = field(default_factory=list)\n"
BODY = "self.embedding = nn.Embedding(config.vocab_size, config.d_model); self.seen = config"


@pytest.mark.parametrize(
    ("before", "parameter"),
    [
        ("@dataclass\nclass Shape:\n" + CONFIG, "config: Shape"),
        ("@dataclass\nclass Shape:\n" + CONFIG, "config: 'Shape | None' = None"),
        ("@dataclass\nclass GPTConfig:\n" + CONFIG, "config"),
        ("from pydantic import BaseModel\nclass Shape(BaseModel):\n" + FIELDS, "config: Shape"),
        ("class Shape:\n    d_model = 4\n    vocab_size = 1\n", "config: Shape"),
    ],
)  # fmt: skip
def test_one_config_object_is_made_of_the_fields_it_has(make, before, parameter):
    loaded = make(before + module("M", f"self, {parameter}", BODY), {"vocab_size": 7, "nhead": 2, "model_name": "M"})
    assert loaded.model.embedding.weight.shape == (7, 4)
    assert type(loaded.model.seen).__name__ in ("Shape", "GPTConfig")
    assert "nothing took nhead" in loaded.chosen
    assert loaded.build().seen is not loaded.model.seen


@pytest.mark.parametrize("name", ["config", "cfg", "args", "hparams"])
@pytest.mark.parametrize("read", ["{}.width", "{}['width']", "{}.get('width')", "dict(**{})['width']"])
def test_an_unannotated_config_is_read_by_attribute_or_by_key(make, name, read):
    loaded = make(module("M", f"self, {name}", f"self.width = {read.format(name)}"), {"width": 3})
    assert loaded.model.width == 3
    assert "a Settings" in loaded.chosen


def test_a_config_annotated_as_a_dict_is_one(make):
    assert make(module("M", "self, config: dict[str, int]", "self.seen = config"), {"a": 1}).model.seen == {"a": 1}


def test_a_config_that_lacks_a_value_is_said_with_those_it_has(make):
    code = module("M", "self, config", "self.width = config.width")
    assert "the config has no 'width'; it has d_model (model.py:7)" in refusal(make, code, {"d_model": 8})
    code = "@dataclass\nclass C:\n    width: int\n" + module("M", "self, config: C")
    assert "C() needs width, which the config lacks; it has d_model." in refusal(make, code, {"d_model": 8})


def test_a_default_config_stays_where_the_config_has_nothing_for_it(make):
    code = "@dataclass\nclass C:\n    width: int = 5\n" + module(
        "M", "self, config=C(6)", "self.width = config.width", "nn.Module"
    )
    assert make(code, {"model_name": "M"}).model.width == 6
    assert make(code, {"model_name": "M", "width": 7}).model.width == 7


# config.json


def graph(*nodes, **top):
    return json.dumps({"version": "1.0", "nodes": [{"params": params} for params in nodes], **top})


def test_a_graphs_params_are_merged_where_its_nodes_agree():
    config = read_config(
        graph({"vocab_size": 9, "p": 0.1}, {"seq_length": 8, "p": 0.2}, {"vocab_size": 9, "d": [1]}, model_name="M")
    )
    assert config == {"version": "1.0", "model_name": "M", "vocab_size": 9, "seq_length": 8, "d": [1], "max_seq_len": 8}
    assert read_config('{"vocab_size": 9, "seq_length": 8}') == {"vocab_size": 9, "seq_length": 8}


def test_a_graph_whose_nodes_disagree_on_the_vocabulary_or_the_length_is_refused():
    with pytest.raises(SourceError, match="disagree on vocab_size: node 0 says 9, node 1 says 8"):
        read_config(graph({"vocab_size": 9}, {"vocab_size": 8}))
    with pytest.raises(SourceError, match=r"disagree on the context length .*: node 0 says 4, node 1 says 5"):
        read_config(graph({"max_seq_len": 4}, {"seq_length": 5}))
    for bad in ('{"nodes": 3}', '{"nodes": [3]}', '{"nodes": [{"params": 3}]}'):
        with pytest.raises(SourceError, match="is not a list of objects|is a int"):
            read_config(bad)


def test_an_override_of_the_length_changes_it_under_both_names():
    both = {"seq_length": 8, "max_seq_len": 8}
    assert merge(both, {"seq_length": 4}) == {"seq_length": 4, "max_seq_len": 4}
    assert merge(both, {"seq_length": 4, "max_seq_len": 5}) == {"seq_length": 4, "max_seq_len": 5}
    assert merge({"d": 1}, {"seq_length": 4}) == {"d": 1, "seq_length": 4}


def test_of_a_length_under_two_names_the_constructor_need_take_only_one(make):
    config = json.loads(graph({"seq_length": 8}))
    assert "nothing took" not in make(module("M", "self, max_seq_len"), config).chosen
    assert "nothing took" not in make(module("M", "self, seq_length"), config).chosen


# Importing and failing


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1 +\n", "importing model.py raised SyntaxError: invalid syntax (model.py, line 4) (model.py:4)"),
        ("import flash_nothing\n", "ModuleNotFoundError: No module named 'flash_nothing' (model.py:4)"),
        ("import sys\nsys.exit(3)\n", "raised SystemExit: 3 (model.py:5)"),
        (module("M", body="torch.zeros(2, 3) @ torch.zeros(2, 3)"), "M(no arguments) raised RuntimeError: mat1"),
        (module("M", body="torch.zeros(2, 3) @ torch.zeros(2, 3)"), "(model.py:7)"),
    ],
)
def test_what_the_models_code_raises_is_one_line_with_its_place(make, code, expected):
    assert expected in refusal(make, code)


def test_siblings_packages_source_and_dataclasses_work_and_nothing_else_is_touched(make, tmp_path):
    files = {"utils.py": "from parts.deep import B\nA = B + 1\n", "parts/deep.py": "import utils as u\nB = 2\n"}
    code = "from utils import A\nimport parts.deep\n" + module(
        "M", body="import utils; self.seen = A, parts.deep.B, utils"
    )
    path, modules = list(sys.path), {name for name in sys.modules if name.startswith(("utils", "parts"))}
    loaded = make(code, files=files)
    assert loaded.model.seen[:2] == (3, 2)
    assert sys.path == path
    assert {name for name in sys.modules if name.startswith(("utils", "parts"))} == modules
    assert not list(tmp_path.rglob("__pycache__"))
    assert set(loaded.source.files) == {"model.py", "utils.py", "parts/deep.py"}
    assert inspect.getsource(type(loaded.model)) in loaded.source.code


def test_a_file_that_changed_since_it_was_found_is_not_run(tmp_path):
    (tmp_path / "model.py").write_text(HEAD + module("M"))
    found = find(str(tmp_path))
    (tmp_path / "model.py").write_text("raise SystemError\n")
    with pytest.raises(SourceError, match="has changed since it was found"):
        load(found)


# Seeds


def test_the_seed_decides_the_weights_and_the_callers_generators_stay(make):
    draws = "self.w = nn.Parameter(torch.rand(3)); self.r = random.random(), numpy.random.rand()"
    code = "import random, numpy\n" + module("M", body=draws)
    random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
    expected = random.random(), numpy.random.rand(), torch.rand(3)
    random.seed(5), numpy.random.seed(5), torch.manual_seed(5)
    one, two, other = make(code, seed=1).model, make(code, seed=1).model, make(code, seed=2).model
    assert (random.random(), numpy.random.rand()) == expected[:2]
    assert_close(torch.rand(3), expected[2], rtol=0, atol=0)
    assert torch.equal(one.w, two.w)
    assert one.r == two.r
    assert not torch.equal(one.w, other.w)


def test_build_gives_fresh_models_whose_config_the_last_one_cannot_have_changed(make):
    code = module("M", "self, sizes", "self.w = nn.Parameter(torch.rand(3)); sizes.append(1); self.sizes = sizes")
    loaded = make(code, {"sizes": [4]})
    again = loaded.build()
    assert again.sizes == [4, 1]
    assert not torch.equal(again.w, loaded.model.w)


def test_a_kind_is_declared_or_the_classs_own_and_never_both_at_odds(make):
    plain, own = module("M"), module("M") + "M.kind = 'causal_lm'\n"
    assert (make(plain).kind, make(plain, kind="seq2seq").kind, make(own).kind) == ("", "seq2seq", "causal_lm")
    assert "M says it is 'causal_lm'" in refusal(make, own, kind="seq2seq")
    assert "expected one of causal_lm" in refusal(make, own, kind="llm")


def test_a_misspelt_setting_of_code_is_refused_with_the_nearest(tmp_path):
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self, width=8, max_len=128):\n"
        "        super().__init__()\n        self.layer = nn.Linear(width, width)\n"
    )
    with pytest.raises(SourceError, match="takes the setting widht; did you mean width"):
        load(find(str(tmp_path)), overrides={"widht": 16})
    loaded = load(find(str(tmp_path)), overrides={"width": 16, "vocab_size": 50})  # the adapter reads vocab_size
    assert loaded.config == {"width": 16, "max_len": 128, "vocab_size": 50}  # what the constructor keeps is known, too
