"""Bytes counted against closed forms, the fit of their growth, and a speed table that is consistent in itself."""

from __future__ import annotations

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.models.adapter import adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.cost import TensorMemory, memory, non_negative_fit, speed, step_memory
from utils.validation.steady import Effort

EFFORT = Effort(rows=3, length=8, longest=64, inputs=1, overfit_steps=3, repeats=20)
N, K = 16, 4 * 16 * 16  # a square matrix of float32, and its bytes


def matrix(*, grad: bool = False) -> Tensor:
    return torch.ones(N, N, requires_grad=grad)


def test_a_chain_of_products_without_gradients_holds_two_at_most():
    x, weights = matrix(), [matrix() for _ in range(5)]
    with TensorMemory() as counted:
        for weight in weights:
            x = x @ weight
    assert (counted.live, counted.peak) == (K, 2 * K)


def test_a_chain_of_products_with_gradients_holds_every_one():
    x, weights = matrix(), [matrix(grad=True) for _ in range(5)]
    with TensorMemory() as counted:
        for weight in weights:
            x = x @ weight
        assert (counted.live, counted.peak) == (5 * K, 5 * K)
        del x, weight
        assert counted.live == 0  # nothing leads to them any more


def test_the_way_back_adds_gradients_and_frees_what_was_held():
    x, weights = matrix(), [matrix(grad=True) for _ in range(5)]
    with TensorMemory() as counted:
        y = x
        for weight in weights:
            y = y @ weight
        y.sum().backward()
        del y
        assert counted.live == 5 * K  # the weights' gradients
        assert 6 * K <= counted.peak <= 10 * K
    for weight in weights:
        assert weight.grad is not None


def test_views_of_a_storage_count_once_and_keep_it():
    x = matrix()
    with TensorMemory() as counted:
        views = [x.t(), x.view(-1), x[3:], x.detach(), x.expand(2, N, N)]
        assert counted.live == 0  # x was there before
        made = x + 1
        views += [made.t(), made.view(-1)[5:], made.t()[2].unsqueeze(0)]
        assert counted.live == K
        del made
        assert counted.live == K  # its views hold it
        views.clear()
        assert (counted.live, counted.peak) == (0, K)


def test_in_place_work_and_outputs_that_are_given_cost_nothing():
    x, out = matrix(), torch.empty(N, N)
    with TensorMemory() as counted:
        x.add_(1).mul_(2).relu_()
        torch.mm(x, x, out=out)
    assert (counted.live, counted.peak) == (0, 0)


def test_the_peak_is_of_what_lives_at_once():
    x = matrix()
    with TensorMemory() as counted:
        for _ in range(10):
            y = x + 1
            del y
        assert (counted.live, counted.peak) == (0, K)
        kept = [x + 1 for _ in range(10)]
        assert (counted.live, counted.peak) == (10 * K, 10 * K)
        kept.clear()
        x + 1
        assert (counted.live, counted.peak) == (0, 10 * K)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.bool])
def test_bytes_are_those_of_the_type(dtype):
    with TensorMemory() as counted:
        made = torch.zeros(7, 9, dtype=dtype)
        assert counted.live == 63 * made.element_size()


def test_parts_of_one_result_each_count():
    x = torch.rand(4, N)
    with TensorMemory() as counted:
        kept = x.sort(dim=1)  # values in float32, indices in int64
    assert counted.live == 4 * N * (4 + 8)
    del kept
    assert counted.live == 0


def test_many_allocations_at_the_same_places_stay_in_balance():
    x = matrix()
    with TensorMemory() as counted:
        for _ in range(300):
            y = (x @ x).relu() + x.t()
            y = y.view(-1)[:5].clone()
    assert counted.live == 5 * 4
    assert not [key for key in counted.known if counted.known[key] != 5 * 4]


class Bigram(nn.Module):
    """An embedding and a head: what a step holds is known by hand."""

    kind = "causal_lm"

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.embedding(input_ids))


@pytest.mark.parametrize(("rows", "length"), [(1, 8), (4, 16), (2, 32)])
def test_a_training_step_holds_what_its_backward_pass_reads(rows, length):
    V, C = 50, 12
    adapter = adapt(Bigram(V, C), config={"context_length": 32})
    held, peak = step_memory(adapter, rows, length)
    tokens, scalars = rows * length, 64
    activations = 4 * tokens * (C + V)  # the head's input, and the log-softmax
    assert activations <= held <= activations + scalars
    # On the way back: the gradient of the logits, and the head's weight's.
    assert peak >= held + 4 * tokens * V
    assert peak <= held + 4 * (2 * tokens * V + tokens * C + 2 * V * C) + scalars


def test_factors_that_were_put_in_come_out():
    B, T = numpy.array([(rows, length) for rows in (1, 2, 4) for length in (8, 16, 32)], dtype=float).T
    terms = numpy.stack([numpy.ones_like(B), B * T, B * T * T], axis=1)
    for factors in ([5e3, 700.0, 12.0], [0.0, 700.0, 12.0], [5e3, 0.0, 12.0], [5e3, 700.0, 0.0], [0.0, 0.0, 3.0]):
        assert non_negative_fit(terms, terms @ factors) == pytest.approx(factors, rel=1e-6, abs=1e-6)


def test_no_factor_is_negative_and_none_is_better():
    from scipy.optimize import nnls

    generator = numpy.random.default_rng(0)
    for _ in range(20):
        terms, values = generator.random((9, 3)), generator.random(9) + 0.5
        ours = non_negative_fit(terms, values)
        theirs, _ = nnls(terms / values[:, None], numpy.ones(9))  # relative errors
        assert (ours >= 0).all()
        assert ours == pytest.approx(theirs, abs=1e-8)


SHAPE = TransformerConfig(vocab_size=31, context_length=64, num_layers=2, num_heads=2, width=16)


def test_the_growth_of_a_model_is_read_off_its_activations():
    V, C = 50, 12
    result = memory(adapt(Bigram(V, C), config={"context_length": 32}), EFFORT)
    assert result.status == "pass"
    assert f"holds {4 * (C + V) / 1024:.1f} KiB for each token and 0 B for each pair" in result.summary
    weights = 16 * 2 * V * C / 2**20  # with gradients and two moments
    assert f"beside {weights:.1f} MiB" in result.summary


class Attending(Bigram):
    """Keeps `copies` (B, T, T) tensors of float32 for the way back."""

    copies = 3

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        scores = x @ x.transpose(1, 2)
        for _ in range(self.copies):
            scores = scores.exp()  # its backward pass reads its result
        return self.head(x) + scores.mean(-1, keepdim=True)


def test_what_grows_with_pairs_of_tokens_is_told_apart():
    result = memory(adapt(Attending(50, 12), config={"context_length": 64}), EFFORT)
    assert result.status == "pass"
    assert "and 12 B for each pair of a row's tokens" in result.summary  # three of 4


def test_memory_that_grows_otherwise_is_a_warning():
    class Hoarding(Bigram):
        def forward(self, input_ids: Tensor) -> Tensor:
            rows, length = input_ids.shape
            waste = (self.head.weight[0, 0] * torch.ones(10**6 if length == 16 and rows < 4 else 1)).exp()
            return super().forward(input_ids) + 0 * waste.sum()

    assert memory(adapt(Hoarding(50, 12), config={"context_length": 32}), EFFORT).status == "warn"


def test_images_are_counted_by_the_image():
    vit = ViT(ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8))
    result = memory(adapt(vit), EFFORT)
    assert result.status == "pass"
    assert "KiB for each image, beside" in result.summary
    assert result.table["held MiB"].is_monotonic_increasing


def test_more_rows_and_longer_ones_take_more():
    table = memory(adapt(GPT(SHAPE)), EFFORT).table
    held = table.pivot_table(index="batch", columns="length", values="held MiB").to_numpy()
    assert (numpy.diff(held, axis=0) > 0).all()
    assert (numpy.diff(held, axis=1) > 0).all()
    assert (table["peak MiB"] >= table["held MiB"]).all()


@pytest.mark.parametrize("text", [True, False])
def test_the_table_of_speeds_is_consistent(text):
    vit = ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8)
    result = speed(adapt(GPT(SHAPE) if text else ViT(vit)), EFFORT)
    assert result.status == "pass"
    assert result.table["batch"].tolist() == [1, 3]
    for row in result.table.to_dict("records"):
        assert 0 < row["median ms"] <= row["p95 ms"] <= row["p99 ms"]
        count = row["batch"] * (EFFORT.length if text else 1)
        rate = row["tokens/s"] if text else row["images/s"]
        assert rate == pytest.approx(count / (row["median ms"] / 1e3))


def test_a_known_delay_is_what_is_measured():
    import time

    class Slow(GPT):
        def forward(self, input_ids: Tensor) -> Tensor:
            time.sleep(0.02)
            return F.one_hot(input_ids, 31).float()

    few = Effort(rows=1, length=8, longest=16, inputs=1, overfit_steps=1, repeats=5)
    row = speed(adapt(Slow(SHAPE)), few).table.iloc[0]
    assert 20 <= row["median ms"] < 200  # a busy machine adds to it, nothing takes away
