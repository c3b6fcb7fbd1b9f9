"""What resuming shares between loops: settings told apart by name, an optimiser put back with its own settings."""

import torch

from utils.training.state import differences, restore_optimizer


def test_differences_are_named_and_settings_that_are_free_are_not_compared():
    saved = {"lr": 0.1, "sample": {"top_p": None, "k": 3}, "device": "cpu", "limits": {"low": 1}}
    own = {"lr": 0.1, "sample": {"top_p": 0.9, "k": 3}, "limits": None, "new": 5}
    assert differences(saved, own, "ppo.") == [
        "ppo.sample.top_p was None, now 0.9",
        "ppo.new was None, now 5",
        "ppo.limits.low was 1, now None",
    ]
    assert differences(saved, {"lr": 0.1, "sample": saved["sample"]}, "") == []


def test_an_optimiser_gets_its_moments_back_and_keeps_its_own_settings():
    def make(lr, betas):
        return torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=lr, betas=betas)

    first, second = make(0.1, (0.9, 0.95)), make(0.2, (0.8, 0.99))
    first.param_groups[0]["params"][0].grad = torch.tensor([1.0, 2.0, 3.0])
    first.step()
    restore_optimizer(second, first.state_dict())
    (group,) = second.param_groups
    assert (group["lr"], group["betas"]) == (0.2, (0.8, 0.99))
    (state,), (before,) = second.state.values(), first.state.values()
    assert torch.equal(state["exp_avg"], before["exp_avg"])
    assert torch.equal(state["exp_avg_sq"], before["exp_avg_sq"])
    assert state["step"] == 1
