"""The plots of a search show its trials as they are."""

import pytest

from utils.experiments.search import SearchConfig, search
from utils.experiments.search_plots import plot_history, plot_importance, plot_parallel, plot_slices
from utils.experiments.search_study import SearchError

SPACE = {
    "train.lr": {"log": [1e-4, 1e-1]},
    "model.width": {"int": [16, 64], "step": 16},
    "train.schedule": ["cosine", "linear"],
    "train.floor": {"float": [0, 1], "when": {"train.schedule": "cosine"}},
}


@pytest.fixture(scope="module")
def found(base, tmp_path_factory):
    """Twelve trials whose loss is their width; numbers 3 and 7 fail."""
    numbers = iter(range(12))

    def run_one(config, watch):
        if next(numbers) in (3, 7):
            raise ValueError("planned")
        return {"loss": float(config.model.width)}

    config = SearchConfig(trials=12, pruner="none", sampler="random", space=SPACE)
    return search(base, config, run_one, tmp_path_factory.mktemp("searched"))


def test_history_shows_every_complete_trial_and_the_best_so_far(found):
    (ax,) = plot_history(found).axes
    done = found.table[found.table["state"] == "complete"]["loss"]
    points, best, failed = ax.get_lines()
    assert points.get_xydata().tolist() == [list(pair) for pair in zip(done.index, done)]
    assert best.get_ydata().tolist() == [min(done.tolist()[: count + 1]) for count in range(len(done))]
    assert failed.get_xdata().tolist() == [3, 7]


def test_slices_show_each_setting_where_it_was_drawn(found):
    axes = {ax.get_xlabel(): ax for ax in plot_slices(found).axes if ax.get_xlabel()}
    assert list(axes) == list(SPACE)
    done = found.table[found.table["state"] == "complete"]
    keys = ("model.width", "train.floor", "train.schedule")
    width, floor, schedule = (axes[key].collections[0].get_offsets() for key in keys)
    assert (width[:, 0] == width[:, 1]).all()  # the loss is the width
    assert len(floor) == (done["train.schedule"] == "cosine").sum() < len(done)
    assert schedule[:, 0].tolist() == [["cosine", "linear"].index(one) for one in done["train.schedule"]]
    assert axes["train.lr"].get_xscale() == "log"


def test_parallel_has_a_line_a_trial_broken_where_a_setting_was_not_drawn(found):
    ax = plot_parallel(found).axes[0]
    done = found.table[found.table["state"] == "complete"].sort_values("loss", ascending=False)
    lines = ax.get_lines()
    assert len(lines) == len(done) == 10
    heights = [(width - 16) / 48 for width in done["model.width"]]
    assert sorted(line.get_ydata()[1] for line in lines) == pytest.approx(sorted(heights))
    broken = sum(line.get_ydata()[3] != line.get_ydata()[3] for line in lines)
    assert broken == (done["train.schedule"] == "linear").sum()


def test_importance_finds_the_setting_that_decides(found):
    (ax,) = plot_importance(found).axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    shares = {name: bar.get_width() for name, bar in zip(names, ax.patches)}
    assert max(shares, key=shares.get) == "model.width"
    assert sum(shares.values()) == pytest.approx(1)


def test_all_figures_are_drawn_as_far_as_there_are_trials(found, base, tmp_path):
    assert list(found.figures()) == ["history", "slices", "parallel", "importance"]
    one = search(base, SearchConfig(name="one", trials=1, space=SPACE), lambda config, watch: {"loss": 1.0}, tmp_path)
    assert list(one.figures()) == ["history", "slices", "parallel"]
    with pytest.raises(SearchError, match="run more"):
        plot_importance(one)
