"""FLOPs against the closed form of a GPT, and rates over the time since the last."""

import pytest
import torch

from utils.core.device import choose, make_fabric
from utils.training.objectives import next_token
from utils.training.speed import Speed, forward_flops


@pytest.fixture(scope="module")
def fabric():
    return {precision: make_fabric(choose("cpu", precision)) for precision in ("fp32", "bf16")}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("positions", ["rotary", "learned", "alibi"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_forward_flops_equal_the_closed_form(precision, positions, kv_heads, fabric, tiny_model):
    L, C, T, V, B, nh = 3, 64, 32, 50, 2, 4
    shape = {"num_layers": L, "width": C, "context_length": T, "vocab_size": V, "num_heads": nh}
    model = tiny_model(positions=positions, num_kv_heads=kv_heads, **shape)
    ids = torch.zeros(B, T, dtype=torch.long)
    found = forward_flops(model, next_token, {"input_ids": ids, "labels": ids}, fabric[precision])
    # A matrix of n entries takes 2n a token: queries and output C^2 each, keys and values C^2 kv / nh each, the
    # feed-forward 8 C^2, the head CV. Full scores take 2TC a token and layer, and so do their sums of values.
    entries = L * (2 * C**2 + 2 * C**2 * kv_heads // nh + 8 * C**2) + C * V
    expected = B * T * (2 * entries + L * 4 * T * C)
    assert found == pytest.approx(expected, rel=0.01)
    assert model.training


def test_a_target_a_row_is_counted_in_rows(fabric, settings):
    class Rows:
        def batches(self, size, **_):
            yield {"input_ids": torch.zeros(size, 4), "labels": torch.zeros(size, dtype=torch.long)}

    def loss(model, batch, step):
        return {"loss": model(batch["input_ids"]).mean()}

    speed = Speed(torch.nn.Linear(4, 2), loss, Rows(), settings(), fabric["fp32"])
    speed.add(next(Rows().batches(6)), 2.0)
    assert speed.take()["rows_per_second"] == 6 / 2


def test_rates_count_targets_and_rows_since_the_last_take(fabric, tiny_model, data, settings):
    model = tiny_model()
    speed = Speed(model, next_token, data.train, settings(), fabric["fp32"])
    batch = next(data.train.batches(3))
    row = {name: value[:1] for name, value in batch.items()}
    half = {"input_ids": batch["input_ids"], "labels": batch["labels"].clone().fill_(-100)}
    half["labels"][:, :4] = 1
    for _ in range(2):  # the second round does not remember the first
        speed.add(batch, 1.0)
        speed.add(half, 3.0)
        values = speed.take()
        assert values["tokens_per_second"] == (24 + 12) / 4
        # Padding costs what tokens cost: 6 rows in 4 seconds, forward and twice that backward.
        flops = 3 * 6 * forward_flops(model, next_token, row, fabric["fp32"])
        assert values["mfu"] == pytest.approx(flops / 4 / speed.peak)
