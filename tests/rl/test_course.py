"""Where pass rates tie, the later update counts as best, and a run that was never above its start says so."""

import json

import pandas
import pytest

from utils.core.checkpoints import Checkpoint, judged
from utils.core.run import Run
from utils.rl.course import Course, course_of
from utils.rl.recipe import load_recipe


@pytest.mark.parametrize(
    ("rates", "best", "rose", "said"),
    [
        ({0: 0.1, 3: 0.3, 6: 0.2}, 3, True, "was best at update 3 of 6: 30.0%, from 10.0%."),
        ({0: 0.1, 3: 0.3, 6: 0.3}, 6, True, "was best at update 6 of 6: 30.0%, from 10.0%."),
        ({0: 0.2, 3: 0.1, 6: 0.1}, 0, False, "was never above the start's 20.0% in 6 updates."),
        ({0: 0.2, 3: 0.2, 6: 0.1}, 3, False, "equal to it last at update 3, whose weights count as the best."),
    ],
)
def test_the_best_update_is_the_one_whose_checkpoint_is_the_best(rates, best, rose, said, tmp_path):
    course = Course(pandas.Series(rates))
    kept = [Checkpoint(tmp_path, update, -rate) for update, rate in rates.items()]
    assert course.best == best == judged(kept)[0].step
    assert course.rose is rose
    assert bool(course.caveat) is not rose
    assert str(course).startswith("Validation pass@1 was ")
    assert said in str(course)


def test_a_course_is_read_from_a_run_as_far_as_it_was_logged(tmp_path):
    run = Run.create(tmp_path, "x", load_recipe("ppo_arc_smoke"))
    assert course_of(run).caveat == ""
    rows = [{"step": 0, "validation/pass@1": 0.5}, {"step": 1, "train/kl": 0.1}, {"step": 2, "validation/pass@1": 0.5}]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert list(course_of(run).rates.index) == [0, 2]
    assert course_of(run).caveat == ", never above the start"
