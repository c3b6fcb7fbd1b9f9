"""Graphs in files: what they hold, what they leave open, and what their makers say."""

from __future__ import annotations

import zipfile

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.blocks import TransformerConfig
from utils.models.exportable import Part
from utils.models.transformer import GPT
from utils.publish.graphs import OPSET, Graph, GraphError, file_of, weight

SIZES = {"vocab_size": 23, "context_length": 16, "num_layers": 1, "num_heads": 2, "width": 16}
ROWS = {0: "batch", 1: "length"}


def part_of(module: nn.Module, *, rows: int = 2, length: int = 6) -> Part:
    """A part of ids alone, with one other input: a row more and longer by half."""

    def ids(rows: int, length: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(length)
        return {"input_ids": torch.randint(23, (rows, length), generator=generator)}

    axes = {"input_ids": ROWS, "logits": ROWS}
    return Part("model", module.eval(), ids(rows, length), (ids(rows + 1, length + 3), ids(1, 1)), axes)


def gpt(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(TransformerConfig(**SIZES, **changes))


@pytest.fixture(scope="module")
def part() -> Part:
    return part_of(gpt(positions="alibi", norm="rmsnorm", activation="swiglu", num_kv_heads=1))


@pytest.fixture(scope="module")
def written(part, tmp_path_factory):
    """A folder with every graph of the part."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, graph = tmp_path_factory.mktemp("graphs"), Graph(part)
    for name in ("onnx", "int8", "pt2", "torchscript"):
        getattr(graph, f"write_{name}")(folder / file_of(name, part))
    return folder


def test_onnx_states_its_opset_and_names_inputs_outputs_and_open_axes(part, written):
    import onnx
    import onnxruntime

    (opset,) = [one.version for one in onnx.load(written / "model.onnx").opset_import if not one.domain]
    session = onnxruntime.InferenceSession(written / "model.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert opset == OPSET
    assert (taken.name, taken.shape) == ("input_ids", ["batch", "length"])
    assert (given.name, given.shape) == ("logits", ["batch", "length", 23])


def test_onnx_of_biased_grouped_and_gated_attention_gives_eagers_logits_at_other_sizes(part, written):
    import onnxruntime

    session = onnxruntime.InferenceSession(written / "model.onnx")
    for inputs in part.others:
        (logits,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        torch.testing.assert_close(torch.from_numpy(logits), part.module(*inputs.values()).detach())


def test_int8_holds_its_matrices_in_a_byte_a_weight(part, written):
    import onnx

    tensors = onnx.load(written / "model.int8.onnx").graph.initializer
    matrices = [tensor for tensor in tensors if len(tensor.dims) == 2 and min(tensor.dims) > 1]
    assert len(matrices) >= 6  # the embedding, the head, and of the block: qkv, out, up, out
    assert {tensor.data_type for tensor in matrices} == {onnx.TensorProto.UINT8}


def test_no_graph_says_where_this_checkout_lies(written):
    from utils.publish import graphs

    here = graphs.__file__.partition("/utils/")[0].encode()
    for name in ("model.onnx", "model.int8.onnx", "model.pt2"):
        assert here not in (written / name).read_bytes(), name


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning")
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi"])
def test_torchscript_leaves_batch_and_length_open_for_all_kinds_of_position(positions, tmp_path):
    part = part_of(gpt(positions=positions))
    Graph(part).write_torchscript(tmp_path / "model.torchscript.pt")
    loaded = torch.jit.load(tmp_path / "model.torchscript.pt")
    with zipfile.ZipFile(tmp_path / "model.torchscript.pt") as content:
        assert not [name for name in content.namelist() if "debug" in name]  # where lines came from on this machine
    for inputs in part.others:
        torch.testing.assert_close(loaded(*inputs.values()), part.module(*inputs.values()))


class Counting(nn.Module):
    """Fixes its batch where Python traces it: `len` gives a number."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.one_hot(input_ids, 23).float().view(len(input_ids), -1, 23)


@pytest.mark.filterwarnings("ignore:.*torch.jit.load:DeprecationWarning")
@pytest.mark.parametrize("name", ["pt2", "torchscript"])
def test_a_batch_that_len_would_fix_is_left_open(name, tmp_path):
    part = part_of(Counting())
    file = tmp_path / file_of(name, part)
    getattr(Graph(part), f"write_{name}")(file)
    loaded = torch.export.load(file).module() if name == "pt2" else torch.jit.load(file)
    for inputs in part.others:
        assert torch.equal(loaded(*inputs.values()), part.module(*inputs.values()))
    assert "len" not in globals()


class Deciding(nn.Module):
    """Has a branch on the data, which no graph of one path can hold."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return F.one_hot(input_ids, 23).float() * (2.0 if input_ids.sum() > 40 else 1.0)


def test_a_branch_on_the_data_is_an_error_that_names_the_tool_and_the_cause(tmp_path):
    with pytest.raises(GraphError, match=r"torch\.export: .*data-dependent"):
        Graph(part_of(Deciding())).write_pt2(tmp_path / "model.pt2")


def test_attention_is_torchs_own_again_after_a_trace_that_fails(tmp_path):
    class Failing(nn.Module):
        def forward(self, input_ids: Tensor) -> Tensor:
            raise RuntimeError("no trace of this")

    before = F.scaled_dot_product_attention
    with pytest.raises(GraphError, match="no trace of this"):
        Graph(part_of(Failing())).write_torchscript(tmp_path / "model.torchscript.pt")
    assert F.scaled_dot_product_attention is before


def test_a_tied_matrix_weighs_once():
    tied, apart = gpt(), gpt(tie_embeddings=False)
    assert weight(part_of(apart)) - weight(part_of(tied)) == 23 * 16 * 4  # vocabulary, width, bytes of a float
