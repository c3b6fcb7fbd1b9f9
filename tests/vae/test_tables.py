"""Tables of evaluations: the order of worst and best, and the card. Bits by task: test_plots."""

import pandas
import pytest

from utils.vae.tables import metric_card, worst_and_best


def test_the_worst_cost_most_among_the_equally_wrong_and_the_best_show_most_among_the_exact():
    grids = pandas.DataFrame(
        {
            "row": [3, 5, 7, 9, 11],
            "inside": 10,
            "inside_right": [10, 10, 2, 2, 9],
            "exact": [1, 1, 0, 0, 0],
            "foreground": [0, 4, 5, 5, 5],
            "bits_per_cell": [0.1, 0.2, 3.0, 4.0, 1.0],
        }
    )
    found = worst_and_best(grids, 3)
    assert found["worst"].tolist() == [9, 7, 11]
    assert found["best"].tolist() == [5, 3, 11]


def test_the_card_has_the_model_and_each_baseline_of_each_split_in_percent():
    names = ("all", "non_padding", "non_padding_macro", "foreground", "shape", "exact")
    found = {name: {"value": 0.5, "low": 0.4, "high": 0.625} for name in names}
    missing = {**found, "foreground": {"value": None, "low": None, "high": None}}
    results = {"test": {"reconstruction": found, "baselines": {"modal colour": missing}, "counts": {"grids": 1234}}}
    card = metric_card(results)
    assert card.index.tolist() == [("test", "this model"), ("test", "modal colour")]
    assert card.loc[("test", "this model"), "exact grids"] == "50.0 (40.0 to 62.5)"
    assert card.loc[("test", "modal colour"), "foreground"] == "–"
    assert set(card["grids"]) == {"1,234"}
    results["test"]["baselines"]["modal colour"] = {name: {"value": 0.5, "low": None, "high": None} for name in names}
    assert metric_card(results).loc[("test", "modal colour"), "exact grids"] == "50.0 (no interval: one task)"
    with pytest.raises(ValueError, match="No results"):
        metric_card({})
