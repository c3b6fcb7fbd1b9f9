"""Figures of single programs show the numbers they are given."""

import pytest

from utils.rl.closeup_plots import plot_reward_components, plot_rollout
from utils.rl.reward import Scored

pytestmark = pytest.mark.filterwarnings("error::UserWarning")


def test_components_of_rewards_stack_to_their_sum():
    nothing = dict.fromkeys(("passes", "brevity", "wrong", "faults", "trick"), 0.0)
    scored = {
        "right": Scored(1.04, 1.0, {**nothing, "passes": 1.0, "brevity": 0.04}),
        "bad": Scored(-0.6, 0.0, {**nothing, "wrong": -0.1, "faults": -0.5}, "", "runtime"),
    }
    ax = plot_reward_components(scored).axes[0]
    ends = dict.fromkeys(scored, 0.0)
    for bar in ax.patches:
        ends["right" if round(bar.get_y() + 0.3) == 0 else "bad"] += bar.get_width()
    assert ends == pytest.approx({"right": 1.04, "bad": -0.6})
    assert "-0.600 (runtime, 0% of hidden pairs)" in [text.get_text() for text in ax.texts]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"passes", "brevity", "wrong", "faults"}


def test_one_program_is_drawn_token_by_token():
    figure = plot_rollout(["    return ", "crop$", "(grid)\n$", ""], [-0.1, -2, -0.5, -0.1], [0.1] * 4, [-1, 1, 0, 2])
    assert [label.get_text() for label in figure.axes[2].get_xticklabels()] == [
        "····return·",
        "crop$",
        "(grid)↵$",
        "end",
    ]
    assert sorted(bar.get_height() for bar in figure.axes[2].patches) == [-1, 0, 1, 2]
    assert {bool(bar.get_hatch()) for bar in figure.axes[2].patches if bar.get_height() < 0} == {True}
    assert figure.axes[0].get_title(loc="left") == "One program, token by token (hatched: below 0)"
    assert not figure.axes[1].texts
    flat = plot_rollout(["a", "b"], [0.0, 0.0], [0.0, 0.0], [1.0, 2.0])
    assert flat.axes[0].get_title(loc="left") == "One program, token by token"
    assert [text.get_text() for text in flat.axes[1].texts] == ["0 everywhere: it has learned nothing yet"]
    with pytest.raises(ValueError, match="2 tokens"):
        plot_rollout(["a", "b"], [0.1], [0.1, 0.2], [0.1, 0.2])
    with pytest.raises(ValueError, match="0 tokens"):
        plot_rollout([], [], [], [])


def test_no_program_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        plot_reward_components({})
