"""Every check gives the model and the generators back as it found them; and `WithoutDropout` stops every dropout."""

from __future__ import annotations

import contextlib
import hashlib
import random

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from utils.core.config import ConfigError
from utils.core.repro import rng_state
from utils.models.adapter import Adapter, adapt
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.models.vit import ViT, ViTConfig
from utils.validation.dependence import eval_determinism
from utils.validation.steady import EFFORTS, Effort, WithoutDropout, effort, matrices, untouched
from utils.validation.tier1 import TIER1

SHAPE = TransformerConfig(vocab_size=13, context_length=12, num_layers=1, num_heads=2, width=8)
TINY = Effort(rows=2, length=8, longest=16, inputs=1, overfit_steps=3, repeats=2)


class Normed(GPT):
    """BatchNorm over the width: buffers that training moves, one of them a count."""

    def __init__(self):
        super().__init__(SHAPE)
        self.batch_norm = nn.BatchNorm1d(SHAPE.width)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.hidden(input_ids)  # (B, T, C)
        return self.head(self.batch_norm(hidden.transpose(1, 2)).transpose(1, 2))


class Growing(GPT):
    """Positions in a buffer outside the state dict, which a longer input replaces by a longer one; and it counts."""

    def __init__(self):
        super().__init__(SHAPE)
        self.register_buffer("angles", torch.arange(2.0), persistent=False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.longest, self.table = 2, None

    def forward(self, input_ids: Tensor) -> Tensor:
        T = input_ids.shape[1]
        self.calls += 1
        if self.longest < T:
            self.longest, self.table = T, torch.arange(T).cos()
            self.register_buffer("angles", torch.arange(float(T)), persistent=False)
        return super().forward(input_ids) + self.angles[:T, None].cos()


def frozen() -> GPT:
    model = GPT(SHAPE)
    model.embedding.requires_grad_(False)
    model.blocks[0].attention.requires_grad_(False)
    return model


@torch.enable_grad()
def with_gradients() -> GPT:
    model = GPT(SHAPE.replace(tie_embeddings=False))
    model(torch.arange(12).view(2, 6)).square().sum().backward()
    return model


def mixed_modes() -> GPT:
    model = GPT(SHAPE.replace(dropout=0.5)).eval()
    model.blocks[0].feed_forward.train()
    return model


MODELS = {
    "GPT": lambda: GPT(SHAPE),
    "batch norm": Normed,
    "dropout": lambda: GPT(SHAPE.replace(dropout=0.5)),
    "tied weights": lambda: GPT(SHAPE.replace(tie_embeddings=True, positions="learned")),
    "frozen parameters": frozen,
    "gradients present": with_gradients,
    "mixed modes": mixed_modes,
    "buffers that grow": Growing,
    "images": lambda: ViT(
        ViTConfig(image_size=4, patch_size=2, num_classes=3, num_layers=1, num_heads=2, width=8, dropout=0.1)
    ),
}


def adapted(name: str) -> Adapter:
    torch.manual_seed(0)
    return adapt(MODELS[name](), build=MODELS[name])


def digest(tensors: dict[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name, tensor in tensors.items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def state(model: nn.Module) -> dict[str, object]:
    """All that a check might leave changed, in values that compare with ==."""
    parameters = dict(model.named_parameters())
    gradients = {name: one.grad for name, one in parameters.items() if one.grad is not None}
    generators = rng_state()
    return {
        "state dict": digest(model.state_dict()),
        "buffers": digest(dict(model.named_buffers())),
        "which tensors": [id(one) for one in [*parameters.values(), *model.buffers()]],
        "gradients": digest(gradients),
        "which gradients": {name: id(grad) for name, grad in gradients.items()},
        "requires_grad": [one.requires_grad for one in parameters.values()],
        "modes": [module.training for module in model.modules()],
        "attributes": [
            {name: id(value) for name, value in vars(module).items() if isinstance(value, Tensor | int)}
            for module in model.modules()
        ],
        "hooks": [len(getattr(module, kind)) for module in model.modules() for kind in HOOKS],
        "torch": digest({"": generators["torch"]}),
        "numpy": [str(one) for one in generators["numpy"]] + [digest({"": generators["numpy"][1]})],
        "python": str(generators["python"]),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("check", TIER1, ids=lambda check: check.__name__)
def test_a_check_leaves_the_model_and_the_generators_as_found(check, name):
    adapter = adapted(name)
    before = state(adapter.model)
    check(adapter, TINY)
    assert state(adapter.model) == before


class Boom(Exception):
    pass


class Bomb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        raise Boom


class Mined(GPT):
    """Raises on the way back; or, with a `fuse`, in the forward pass, after so many calls more."""

    fuse: int | None = None

    def forward(self, input_ids: Tensor) -> Tensor:
        random.random(), numpy.random.rand(), torch.rand(())
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Boom
        return Bomb.apply(super().forward(input_ids))


@pytest.mark.parametrize("fuse", [None, 0, 1, 2, 4], ids=lambda fuse: "back" if fuse is None else f"forward-{fuse}")
@pytest.mark.parametrize("check", TIER1, ids=lambda check: check.__name__)
def test_a_check_that_raises_midway_leaves_all_as_found(check, fuse):
    model = Mined(SHAPE.replace(dropout=0.3))
    adapter = adapt(model, build=lambda: Mined(SHAPE))
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.fuse = fuse
    before = state(model)
    with contextlib.suppress(Boom):
        check(adapter, TINY)
    assert state(model) == before


def test_a_check_that_goes_backwards_did_raise():
    model = Mined(SHAPE)
    raised = []
    for check in TIER1:
        try:
            check(adapt(model), TINY)
        except Boom:
            raised.append(check.__name__)
    assert raised == ["gradient_flow", "overfit_one_batch", "memory"]


def test_parameters_move_inside_and_come_back_only_where_weights_are_asked_for():
    adapter = adapt(GPT(SHAPE))
    weight, value = adapter.model.head.weight, adapter.model.head.weight.detach().clone()
    with untouched(adapter, weights=True), torch.no_grad():
        weight += 1
        assert not torch.equal(weight, value)
    assert torch.equal(weight, value)
    with untouched(adapter), torch.no_grad():
        weight += 1
    assert torch.equal(weight, value + 1)


def test_the_mode_inside_is_eval_or_train_whatever_it_was():
    adapter = adapt(mixed_modes())
    for train in (False, True):
        with untouched(adapter, train=train) as model:
            assert {module.training for module in model.modules()} == {train}


def test_inside_every_generator_is_at_the_seed():
    adapter = adapt(GPT(SHAPE))
    draws = []
    for seed in (3, 3, 4):
        with untouched(adapter, seed=seed):
            draws.append((random.random(), numpy.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[1]
    assert all(one != other for one, other in zip(draws[1], draws[2]))


class Kept(GPT):
    """Keeps tables in a dict by length, as it computes them."""

    def __init__(self):
        super().__init__(SHAPE)
        self.tables: dict[int, Tensor] = {}

    def forward(self, input_ids: Tensor) -> Tensor:
        T = input_ids.shape[1]
        if T not in self.tables:
            self.tables[T] = torch.arange(float(T)).cos()[:, None]
        return super().forward(input_ids) * self.tables[T]


@pytest.mark.parametrize("check", TIER1, ids=lambda check: check.__name__)
def test_tables_that_a_model_keeps_from_a_check_can_be_trained_with(check):
    adapter = adapt(Kept(), build=Kept)
    check(adapter, TINY)
    for length in [length for length in adapter.model.tables if length <= adapter.limit]:
        adapter.loss(adapter.batch(2, length, seed=0)).backward()


@pytest.mark.parametrize(
    "draw", [random.random, numpy.random.rand, lambda: torch.rand(()).item()], ids=["python", "numpy", "torch"]
)
def test_noise_of_any_generator_is_found_in_eval_mode_and_fails_nothing_else(draw):
    class Noisy(GPT):
        def forward(self, input_ids: Tensor) -> Tensor:
            return super().forward(input_ids) * (1 + draw())

    adapter = adapt(Noisy(SHAPE), build=lambda: Noisy(SHAPE))
    assert eval_determinism(adapter, TINY).status == "fail"
    enough = Effort(rows=2, length=8, longest=16, inputs=1, overfit_steps=150, repeats=2)
    assert [check.__name__ for check in TIER1 if check(adapter, enough).status == "fail"] == ["eval_determinism"]


X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
Q = X.view(4, 6, 2, 4).transpose(1, 2)
PACKED = pack_padded_sequence(X, torch.tensor([6, 5, 4, 2]), batch_first=True)


def functional(name: str, *, inplace: bool):
    x = X[..., None, None].expand(4, 6, 8, 2, 2) if name in ("dropout3d", "feature_alpha_dropout") else X
    x = X.unsqueeze(1) if name == "dropout2d" else x
    return lambda: getattr(F, name)(x.clone(), 0.5, training=True, inplace=inplace)


def low_level(name: str, *, keyword: bool):
    call = getattr(torch, name)
    return lambda: call(X.clone(), p=0.5, train=True) if keyword else call(X.clone(), 0.5, True)


NAMES = ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"]
LOW = [name + end for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout") for end in "|_"]
CALLS = {
    f"F.{name}{' in place' if inplace else ''}": functional(name, inplace=inplace)
    for name in NAMES
    for inplace in (False, True)
}
CALLS |= {
    f"torch.{name}{' by keyword' if keyword else ''}": low_level(name.rstrip("|"), keyword=keyword)
    for name in LOW
    for keyword in (False, True)
}
CALLS |= {
    "torch.native_dropout": lambda: torch.native_dropout(X, 0.5, True)[0],
    "SDPA": lambda: F.scaled_dot_product_attention(Q, Q, Q, None, 0.5),
    "SDPA by keyword": lambda: F.scaled_dot_product_attention(Q, Q, Q, dropout_p=0.5, is_causal=True),
}
HALF = {"dropout": 0.5, "batch_first": True}
MODULES = {
    "Dropout": (lambda: nn.Dropout(0.5), (X,)),
    "Dropout in place": (lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5, inplace=True)), (X,)),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(8, 2, **HALF), (X, X, X)),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, **HALF), (X,)),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(8, 2, 16, **HALF), (X, X)),
    "LSTM": (lambda: nn.LSTM(8, 8, 2, **HALF), (X,)),
    "LSTM, packed": (lambda: nn.LSTM(8, 8, 2, **HALF), (PACKED,)),
    "GRU": (lambda: nn.GRU(8, 8, 2, **HALF), (X,)),
    "GRU, packed": (lambda: nn.GRU(8, 8, 2, **HALF), (PACKED,)),
    "RNN": (lambda: nn.RNN(8, 8, 2, **HALF), (X,)),
    "RNN with relu": (lambda: nn.RNN(8, 8, 2, nonlinearity="relu", **HALF), (X,)),
}


def tensor(output: object) -> Tensor:
    while isinstance(output, tuple):  # a PackedSequence is one too
        output = output[0]
    return output


@pytest.mark.parametrize("name", CALLS)
def test_a_dropout_that_is_called_passes_its_input_on(name):
    call = CALLS[name]
    torch.manual_seed(0)
    assert not torch.equal(call(), call())  # it does drop
    with WithoutDropout():
        one, two = call(), call()
    assert torch.equal(one, two)
    if "SDPA" not in name:
        assert torch.equal(one.flatten().sort().values.unique(), X.flatten().sort().values.unique())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_in_train_mode_computes_what_it_does_in_eval_mode(name):
    make, inputs = MODULES[name]
    torch.manual_seed(0)
    module = make().train()
    assert not torch.equal(tensor(module(*inputs)), tensor(module(*inputs)))
    with WithoutDropout():
        one, two = tensor(module(*inputs)), tensor(module(*inputs))
    assert torch.equal(one, two)
    torch.testing.assert_close(one, tensor(module.eval()(*inputs)))


def test_dropout_drops_again_afterwards():
    with WithoutDropout():
        F.dropout(X)
    assert (F.dropout(X) == 0).any()


def test_matrices_leave_out_vectors_and_count_a_tied_one_once():
    model = GPT(SHAPE.replace(tie_embeddings=True, bias=True))
    assert list(matrices(model)) == [
        "embedding.weight",
        "blocks.0.attention.qkv.weight",
        "blocks.0.attention.out.weight",
        "blocks.0.feed_forward.up.weight",
        "blocks.0.feed_forward.out.weight",
    ]


def test_a_single_vector_in_whatever_shape_is_no_matrix_but_a_layer_of_one_row_is():
    model = nn.Sequential(nn.Linear(8, 1))
    model.mask_token, model.gain = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.ones(8, 1, 1))
    model.positions = nn.Parameter(torch.ones(1, 4, 8))
    assert list(matrices(model)) == ["positions", "0.weight"]


def test_a_scale_is_one_of_three_and_the_error_names_them():
    assert effort("smoke") is EFFORTS["smoke"]
    with pytest.raises(ConfigError, match="scale='huge': expected one of smoke, standard, full"):
        effort("huge")


def test_lengths_stay_within_the_context_and_the_effort():
    adapter = adapt(GPT(SHAPE))  # a context of 12
    assert (TINY.length_for(adapter), TINY.full(adapter)) == (8, 12)
    adapter.limit = 5
    assert (TINY.length_for(adapter), TINY.full(adapter)) == (5, 5)
    adapter.limit = None
    assert (TINY.length_for(adapter), TINY.full(adapter)) == (8, 16)
