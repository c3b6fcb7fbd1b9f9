from __future__ import annotations

import torch
from torch import nn

from utils.validation.watch import running


def test_the_stack_names_the_modules_that_run_outermost_first_and_is_empty_after():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    now, seen = [], []
    model[1][1].register_forward_hook(lambda *_: seen.append(list(now[0])))
    with running(model) as stack:
        now.append(stack)
        model(torch.ones(1, 2))
        assert stack == []
    assert seen == [["Sequential", "1", "1.1"]]


def test_modules_without_children_are_told_of_in_the_order_in_which_they_return():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    seen = []
    with running(model, lambda name, module, output: seen.append((name, tuple(output.shape)))):
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))  # no hook is left
    assert seen == [("0", (1, 3)), ("1.0", (1, 3)), ("1.1", (1, 3))]
