"""The choice of device and precision."""

import pytest
import torch

from utils.core.config import ConfigError
from utils.core.device import choose, peak_flops


def test_the_first_device_that_is_there_is_chosen_with_the_reason():
    compute = choose()
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert compute.device.type == expected
    assert compute.reason
    assert str(compute).startswith(f"{expected}, {compute.precision} (")


@pytest.mark.parametrize("name", ["cuda", "mps", "tpu"])
def test_a_device_that_is_absent_is_not_replaced_by_another(name):
    if getattr(torch.backends, name, None) and getattr(torch, name).is_available():
        pytest.skip(f"{name} is there")
    with pytest.raises(ConfigError, match=f"'{name}' was asked for, but this machine has: .*cpu"):
        choose(name)


def test_fp16_needs_a_cuda_gpu():
    with pytest.raises(ConfigError, match="fp16 needs a CUDA GPU"):
        choose("cpu", "fp16")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_asked_for_by_name_is_taken(precision, dtype):
    compute = choose("cpu", precision)
    assert (compute.precision, compute.dtype, compute.device.type) == (precision, dtype, "cpu")
    assert f"{precision} was asked for" in compute.reason


def test_the_peak_is_positive_and_measured_once():
    first = peak_flops(torch.device("cpu"), torch.float32)
    assert first > 0
    assert peak_flops(torch.device("cpu"), torch.float32) == first  # a second measurement would differ in some digit
