"""The PPO loop: stopped, killed, refused and resumed as if never broken off; what it logs, keeps and stops at.

The game: to name the primitive that a task was made with. A tiny policy can write nothing but the three names.
`ppo_child.py` plays the same in processes of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pandas.testing import assert_frame_equal

from utils.arc.programs import ProgramsConfig
from utils.core import repro
from utils.core.checkpoints import Checkpoints
from utils.core.device import choose, make_fabric
from utils.core.run import Run, RunError
from utils.models.blocks import TransformerConfig
from utils.rl import ppo
from utils.rl.buffer import Trajectories
from utils.rl.config import PPOConfig
from utils.rl.dialogue import PieceDialogue
from utils.rl.evaluate import pass_rates
from utils.rl.game import Game
from utils.rl.loop import train_ppo
from utils.rl.policy import CodePolicy
from utils.rl.problems import PoolConfig, make_pool, problems
from utils.rl.reference import reference_of
from utils.rl.reward import FAULTS, RewardConfig
from utils.rl.sampling import pad_left
from utils.rl.sandbox import Sandbox, SandboxConfig
from utils.rl.tiny import GridGPT
from utils.rl.tricks import TRICKS
from utils.rl.vocabulary import PieceTokenizer
from utils.training.fit import NonFiniteError
from utils.training.optim import learning_rate, make_optimizer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the sandbox needs fork"),
    pytest.mark.usefixtures("one_thread"),
]
NAMES = ("flip_columns", "flip_rows", "transpose")
SETTINGS = {
    "updates": 6,
    "prompts": 4,
    "samples": 4,
    "minibatches": 2,
    "sample": {"max_new_tokens": 3},
    "lr": 3e-3,
    "schedule": "linear",
    "warmup_steps": 2,
    "kl_coefficient": 0.05,
    "kl_target": 0.5,
    "stop_kl": None,
    "device": "cpu",
    "precision": "fp32",
    "eval_every": 3,
    "eval_samples": 2,
    "checkpoint_minutes": None,
    "trackers": (),
}
CLOCK = ["train/programs_per_second", "train/rollout_seconds", "train/passes_seconds"]


class NamesOnly(PieceTokenizer):
    """Bans everything but the names and the end."""

    @property
    def banned(self):
        kept = {self.eos_id, *(self.pieces[name] for name in self.names)}
        return tuple(one for one in range(self.vocab_size) if one not in kept)


TOKENIZER = NamesOnly(NAMES)
ENCODE = PieceDialogue(TOKENIZER, 120).encode


def read(text):
    return f"def solve(grid):\n    return {text}(grid)\n"


def make_policy(seed=0, value="head", dropout=0.1):
    repro.seed_everything(seed)
    sizes = {"context_length": 128, "num_layers": 1, "num_heads": 2, "width": 16, "dropout": dropout}
    return CodePolicy(GridGPT(TransformerConfig(vocab_size=TOKENIZER.vocab_size, **sizes)), TOKENIZER, value=value)


def make_problems():
    """24 tasks to learn from and 8 to be judged by; of two levels, so that the curriculum has a choice."""
    config = ProgramsConfig(primitives=NAMES, max_depth=1, min_side=2, max_side=3, max_colours=2)
    pool = make_pool(PoolConfig(programs=config, train=24, validation=8, test=1))
    own = [problems(examples, ENCODE) for examples in (pool.train, pool.validation)]
    return [[type(one)(one.task, one.prompt, 1 + at % 2) for at, one in enumerate(split)] for split in own]


def make_game(sandbox, read=read, fingerprint="names", **reward):
    return Game(*make_problems(), read, sandbox, RewardConfig(**reward), fingerprint)


def digest(weights):
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in weights.values())).hexdigest()


def checkpoints(run):
    return Checkpoints(run.path / "checkpoints")


def trace(run):
    """What a run logged, but for times: bit for bit what training did, update by update."""
    metrics = run.metrics()
    return metrics.drop(columns=[*CLOCK, *(name for name in metrics if name.startswith("system/"))])


def final_state(run):
    return checkpoints(run).last().load()


def equal(one, other):
    """Whether two nests of dicts, lists, tensors and plain values are alike bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (dict, list, tuple)):
        keys = one if isinstance(one, dict) else range(len(one))
        return len(one) == len(other) and all(equal(one[key], other[key]) for key in keys)
    return one == other


def final_weights(run):
    return digest(final_state(run)["policy"])


@pytest.fixture
def new_run(tmp_path):
    return lambda: Run.create(tmp_path, "names", PPOConfig(**SETTINGS))


@pytest.fixture
def train(open_sandbox, new_run):
    """`train_ppo` on what is given and the tiny game for the rest."""

    def train(policy=None, reference=None, game=None, run=None, watch=None, **changes):
        policy = policy or make_policy()
        game, run = game or make_game(open_sandbox), run or new_run()
        config = PPOConfig(**SETTINGS | changes)
        return train_ppo(policy, reference or reference_of(policy), game, run, config, watch=watch)

    return train


FORWARDS = 6  # of an update: the reference in 2 parts, then 2 passes of 2 minibatches


def counted(action, number):
    """A callable that calls `action` when it is called for the time `number` (0, 1, ...)."""
    calls = []

    def count(*_):
        calls.append(None)
        if len(calls) == number + 1:
            action()

    return count


def meet(policy, action, *, update, forward):
    """Have `action` called before a forward pass (0 to FORWARDS - 1) of an update (1, 2, ...) of a session."""
    policy.register_forward_pre_hook(counted(action, FORWARDS * (update - 1) + forward))
    return policy


def meet_reading(game, action, number):
    """The game, which calls `action` when it reads the program of this number, drawn in training or in evaluation."""
    count = counted(action, number)

    def counted_read(text):
        count()
        return game.read(text)

    return replace(game, read=counted_read)


def ends(run):
    """The events that say how sessions ended."""
    events = map(json.loads, (run.path / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return [event for event in events if event["kind"] == "end"]


def stop():
    raise InterruptedError


# Interrupted and resumed


def test_resumed_from_any_checkpoint_a_run_ends_as_the_whole_one_did(train, new_run):
    whole = new_run()
    result = train(run=whole, checkpoint_every=1, keep_last=9, restore_best=False)
    assert [one.step for one in checkpoints(whole).all()] == list(range(7))
    logged, state = trace(whole), final_state(whole)
    assert list(logged.index) == list(range(7))
    for update in range(6):
        run = Run.open(shutil.copytree(whole.path, whole.path.with_name(f"from{update}")))
        for one in checkpoints(run).all()[update + 1 :]:
            shutil.rmtree(one.path)
        # Another policy, and another reference: both are put back as they were.
        again = train(make_policy(seed=5), run=run, checkpoint_every=1, keep_last=9, restore_best=False)
        assert str(again) == str(result)
        assert_frame_equal(trace(run), logged, check_exact=True)
        assert equal(final_state(run), state)


@pytest.mark.parametrize(("value", "precision"), [("head", "fp32"), ("network", "bf16")])
def test_interrupted_and_killed_run_equals_the_uninterrupted_one(value, precision, new_run):
    exit_codes = {
        signal.SIGKILL: -9,
        signal.SIGTERM: -15,
        signal.SIGINT: 130,
    }  # 130 is ppo_child.py's KeyboardInterrupt
    draw = random.Random(value)
    whole, broken = new_run(), new_run()
    # In the second update; while the first programs of a session are read; in its first pass.
    places = [{"forward": draw.randrange(FORWARDS, 2 * FORWARDS)}, {"read": draw.randrange(16)}, {"forward": 3}]
    numbers = draw.sample([*exit_codes, signal.SIGKILL, signal.SIGKILL], 3)
    stops = [{"at": place, "number": number} for place, number in zip(places, numbers)]
    sessions = [{"run": str(whole.path)}, *({"run": str(broken.path), **one} for one in [*stops, {}])]
    settings = {"checkpoint_every": 2, "precision": precision}
    sessions = [{"settings": settings, "value": value, **session} for session in sessions]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("ppo_child.py")), json.dumps(sessions)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, *(exit_codes[number] for number in numbers), 0], done.stderr
    assert_frame_equal(trace(broken), trace(whole), check_exact=True)
    assert equal(final_state(broken), final_state(whole))


def test_signal_acts_once_its_update_is_saved(train, new_run):
    run, saved = new_run(), []
    before = signal.signal(signal.SIGTERM, lambda *_: saved.append(checkpoints(run).last().step))
    try:
        policy = meet(make_policy(), lambda: signal.raise_signal(signal.SIGTERM), update=2, forward=4)
        result = train(policy, run=run)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert saved == [2]
    assert list(trace(run).index) == [0, 1, 2]
    assert result.progress.finished == ""
    assert str(result).startswith("interrupted after 2 updates, 32 programs drawn.")
    assert [event["text"] for event in ends(run)] == [f"{run.path.name}: interrupted after 2 updates, at step 2."]
    train(run=run)
    assert ends(run)[-1]["text"] == f"{run.path.name}: complete after 6 updates, at step 6."


def test_complete_run_says_so_and_is_not_trained_again(train, new_run, caplog):
    run = new_run()
    first = train(run=run)
    written = run.metrics_file.read_bytes()
    with caplog.at_level(logging.INFO):
        again = train(run=run)
    assert "complete after 6 updates" in caplog.text
    assert str(again) == str(first)
    assert run.metrics_file.read_bytes() == written


def test_changed_settings_and_tasks_are_refused_by_name_and_free_ones_taken(train, new_run, open_sandbox):
    run = new_run()
    train(run=run, updates=1)
    changed = {"updates": 1, "lr": 0.01, "sample": {"max_new_tokens": 2}}
    with pytest.raises(RunError, match=r"ppo\.sample\.max_new_tokens was 3, now 2; ppo\.lr was 0\.003, now 0\.01"):
        train(run=run, **changed)
    with pytest.raises(RunError, match=r"reward\.runtime was -0\.5, now -0\.4"):
        train(run=run, updates=1, game=make_game(open_sandbox, runtime=-0.4))
    with (
        Sandbox(SandboxConfig(timeout=9), workers=1) as other,
        pytest.raises(RunError, match=r"sandbox\.timeout was 10\.0, now 9\.0"),
    ):
        train(run=run, updates=1, game=make_game(other))
    with pytest.raises(RunError, match="trained on tasks names, and these are others: the pool"):
        train(run=run, updates=1, game=make_game(open_sandbox, fingerprint="others"))
    train(run=run, updates=1, log_every=7, checkpoint_every=4, keep_last=5)


def test_another_number_of_programs_at_a_time_is_told_to_draw_others(train, new_run, caplog):
    run = new_run()
    for updates in (1, 2):
        train(run=run, updates=updates, schedule="constant", sample_batch=8)
    assert "draws other programs" not in caplog.text
    train(run=run, updates=3, schedule="constant")
    assert "ppo.sample_batch 8 and goes on with None: from here on it draws other programs" in caplog.text


def test_lost_reference_is_an_error_that_says_so(train, new_run):
    run = new_run()
    with pytest.raises(InterruptedError):
        train(meet(make_policy(), stop, update=2, forward=0), run=run)
    shutil.rmtree(checkpoints(run).folder / "reference")
    with pytest.raises(RunError, match="has lost the weights of its reference"):
        train(run=run)


def test_refused_checkpoint_is_reported_and_written_when_the_disk_takes_it(train, new_run, caplog):
    run, whole = new_run(), new_run()
    folder, away = checkpoints(run).folder, run.path / "away"

    def vanish():
        folder.rename(away)
        folder.write_text("in the way")

    def come_back():
        folder.unlink()
        away.rename(folder)

    policy = meet(meet(make_policy(), vanish, update=2, forward=3), come_back, update=5, forward=3)
    train(policy, run=run, checkpoint_every=2, keep_last=9)
    train(run=whole)
    refused = [record.message for record in caplog.records if "Training goes on" in record.message]
    assert "Checkpoint of step 2 was not written" in refused[0]
    assert [one.step for one in checkpoints(run).all()] == [0, 6]
    assert final_weights(run) == final_weights(whole)


def test_refused_last_checkpoint_raises_and_leaves_the_policy_trained(train, new_run):
    run, policy, whole = new_run(), make_policy(), make_policy()

    def vanish():
        shutil.rmtree(checkpoints(run).folder)
        checkpoints(run).folder.write_text("in the way")

    with pytest.raises(OSError, match="last checkpoint, of update 6, could not be written"):
        train(meet(policy, vanish, update=5, forward=0), run=run)
    train(whole, restore_best=False)
    assert equal(dict(policy.named_parameters()), dict(whole.named_parameters()))


@pytest.mark.parametrize("fault", ["weights", "gradient"])
def test_what_is_not_finite_stops_before_the_weights_are_touched_and_names_the_update(fault, train, new_run):
    run, policy, before = new_run(), make_policy(), []

    def spoil():
        if fault == "weights":
            with torch.no_grad():
                policy.value.weight.fill_(torch.nan)
        else:
            policy.value.bias.register_hook(lambda gradient: gradient * torch.inf)
        before.append({name: one.detach().clone() for name, one in policy.named_parameters()})

    meet(policy, spoil, update=3, forward=4)  # the third minibatch of its passes
    wrong = "value_loss nan" if fault == "weights" else "grad_norm inf"
    with pytest.raises(NonFiniteError, match=rf"{run.path.name}: Update 3 stopped: {wrong} .*, after 2 that"):
        train(policy, run=run)
    assert all(torch.equal(one, before[0][name]) or name == "value.weight" for name, one in policy.named_parameters())
    assert all(one.grad is None for one in policy.parameters())
    assert checkpoints(run).last().step == 0


# Early stopping and the best weights


def judged(monkeypatch, *rates):
    """Evaluations find these rates, one after the other."""
    left = iter(rates)
    monkeypatch.setattr("utils.rl.session.pass_rates", lambda *_, **__: {"pass@1": next(left), "greedy": 0.0})


def test_training_stops_once_the_pass_rate_has_not_risen_for_patience_evaluations(train, new_run, monkeypatch):
    judged(monkeypatch, 0.1, 0.3, 0.2, 0.4, 0.4, 0.1)  # at 0, 2, ...; as good as the best is no rise
    run, policy = new_run(), make_policy()
    result = train(policy, run=run, updates=40, eval_every=2, patience=2, checkpoint_every=2, keep_last=9)
    assert result.progress.finished == "stopped early after 10 updates"
    assert list(trace(run).index) == list(range(11))
    assert (result.progress.best, result.progress.best_update, result.weights_update) == (0.4, 8, 8)  # the later one
    best = next(one for one in checkpoints(run).all() if one.step == 8)
    assert digest(policy.state_dict()) == digest(best.load()["policy"])


def test_without_patience_training_goes_on_and_the_last_weights_stay_if_so_told(train, monkeypatch):
    judged(monkeypatch, 0.5, 0.4, 0.3)
    result = train(restore_best=False)
    assert result.progress.finished == "complete after 6 updates"
    assert (result.progress.best_update, result.weights_update) == (0, 6)


def test_early_stopping_counts_on_after_an_interrupt(train, new_run, monkeypatch):
    judged(monkeypatch, 0.5, 0.4)
    run, patient = new_run(), {"patience": 2, "updates": 40, "checkpoint_every": 1}
    with pytest.raises(InterruptedError):
        train(meet(make_policy(), stop, update=5, forward=0), run=run, **patient)
    judged(monkeypatch, 0.3)
    assert train(run=run, **patient).progress.finished == "stopped early after 6 updates"


def test_policy_learns_on_tasks_and_is_left_as_at_its_best(train, new_run, open_sandbox):
    learning = {
        "updates": 40, "prompts": 8, "samples": 8, "schedule": "constant", "kl_coefficient": 0.0, "kl_target": None,
        "entropy_weight": 0.01, "eval_every": 10, "eval_samples": 8,
    }  # fmt: skip
    run, policy, game = new_run(), make_policy(dropout=0.0), make_game(open_sandbox)
    result = train(policy, run=run, game=game, **learning)
    passed = run.metrics()["train/pass@1"].dropna()
    assert passed.iloc[-5:].mean() > 3 * passed.iloc[:5].mean()
    rates = run.metrics()["validation/pass@1"].dropna()
    assert list(rates.index) == [0, 10, 20, 30, 40]
    assert (result.progress.best, result.weights_update) == (rates.max(), rates[rates == rates.max()].index[-1])
    config, fabric = PPOConfig(**SETTINGS | learning), Fabric(accelerator="cpu", devices=1)
    again = pass_rates(policy, game.validation, 8, config.sample, game=game, fabric=fabric, seed=config.seed)
    assert again["pass@1"] == rates.max()


# What is logged


def test_a_run_logs_what_its_rollouts_came_to(train, new_run, open_sandbox):
    run = new_run()
    train(run=run, game=make_game(open_sandbox, per_task=0.2))
    logged, config = run.metrics().loc[1:], PPOConfig(**SETTINGS)
    assert list(logged.index) == [1, 2, 3, 4, 5, 6]
    train_metrics = logged[[name for name in logged if name.startswith("train/")]]
    per_level = {f"train/level{level}/pass@1" for level in (1, 2)}  # a rollout may hold one level only
    assert train_metrics.drop(columns=[*per_level, "train/explained_variance"]).notna().all(axis=None)
    components = [name for name in logged if name.startswith("train/component/")]
    np.testing.assert_allclose(logged[components].sum(axis=1), logged["train/score"])
    assert (logged["train/component/task"] > 0).any()  # the reward's own normalisation
    for kind, every in (("trick", TRICKS), ("fault", FAULTS)):
        np.testing.assert_allclose(
            logged[[f"train/{kind}/{name}" for name in every]].sum(axis=1), logged[f"train/{kind}s"]
        )
    np.testing.assert_allclose(logged["train/level1/share"] + logged["train/level2/share"], 1)
    assert (logged["train/pass@1"] <= logged["train/passed"]).all()
    assert (logged["train/fault/truncated"] == logged["train/truncated"]).all()
    assert logged["train/length"].between(1, 3).all()
    assert (logged["train/sandbox_restarts"] == 0).all()
    assert (logged["train/programs_per_second"] > 0).all()
    assert list(logged["train/episodes"]) == [16, 32, 48, 64, 80, 96]
    assert list(logged["train/lr"]) == [learning_rate(update, 6, config) for update in range(6)]
    coefficients = logged["train/kl_coefficient"].tolist()
    assert coefficients[0] == 0.05
    assert (logged["train/kl"] >= 0).all()  # k3
    for before, after, kl in zip(coefficients, coefficients[1:], logged["train/kl_k1"]):
        error = min(max((kl - 0.5) / 0.5, -0.2), 0.2)
        assert after == pytest.approx(before * (1 + error * 16 / 10_000))


def test_the_sandboxs_layers_are_kept_with_the_run(train, new_run, open_sandbox):
    run = new_run()
    train(run=run, updates=0)
    assert run.stamp["sandbox"] == run.stamp["sessions"][0]["sandbox"] == open_sandbox.levels
    assert run.stamp["sandbox"]["seccomp"] in ("ACTIVE", "MISSING")


def test_on_the_first_minibatch_of_an_update_the_ratio_is_1_and_the_kl_0(train, new_run):
    run = new_run()
    train(make_policy(dropout=0.0), run=run, epochs=1, minibatches=1, sample={"max_new_tokens": 3, "top_p": 0.9})
    logged = run.metrics().loc[1:]
    assert logged["train/approx_kl"].max() < 1e-10  # ratios of 1 up to 1e-5
    assert (logged["train/clip_fraction"] == 0).all()
    assert logged["train/kl"][1] < 1e-10  # the reference is the policy itself
    assert logged["train/kl"][6] > 1e-6


def test_a_policy_that_moves_too_far_ends_its_passes(train, new_run):
    run = new_run()
    train(make_policy(dropout=0.0), run=run, stop_kl=1e-9)
    logged = run.metrics().loc[1:]
    assert (logged["train/early_stop"] == 1).all()
    assert (logged["train/minibatches"] == 1).all()  # the second one shows what the first one did


def test_passes_that_end_before_they_begin_are_reported(train, caplog):
    policy = make_policy()

    def stir():
        with torch.no_grad():
            policy.value.bias.add_(1)  # and what the programs are drawn from:
            policy.actor.model.embedding.weight.mul_(2)

    train(meet(policy, stir, update=1, forward=2), updates=1, stop_kl=1e-9)  # after the rollout, before its passes
    assert "Update 1 learned nothing: its first minibatch is" in caplog.text


def test_dropout_does_not_move_the_ratio_from_1(train, new_run):
    run = new_run()
    train(make_policy(dropout=0.5), run=run, epochs=1, minibatches=1)
    assert run.metrics().loc[1:]["train/approx_kl"].max() < 1e-10


# More updates, and a policy that was trained before


def test_a_complete_run_goes_on_where_more_updates_are_asked_for_as_if_asked_at_first(train, new_run, caplog):
    run, whole, constant = new_run(), new_run(), {"schedule": "constant", "restore_best": False}
    train(run=run, updates=3, **constant)
    assert final_state(run)["progress"]["finished"] == "complete after 3 updates"
    with caplog.at_level(logging.INFO):
        result = train(make_policy(seed=5), run=run, updates=6, **constant)
    assert "goes on: complete after 3 updates, and ppo.updates is 6" in caplog.text
    expected = train(run=whole, updates=6, **constant)
    assert str(result) == str(expected)
    assert_frame_equal(trace(run), trace(whole), check_exact=True)
    ours, theirs = final_state(run), final_state(whole)
    assert ours["config"] == theirs["config"]
    assert equal(ours, theirs)
    assert [entry["updates"] for entry in run.stamp["sessions"]] == [3, 6]


def test_an_end_between_evaluations_adds_one_and_changes_no_weight(train, new_run):
    run, whole, constant = new_run(), new_run(), {"schedule": "constant", "restore_best": False}
    train(run=run, updates=2, **constant)
    train(run=run, updates=6, **constant)
    train(run=whole, updates=6, **constant)
    assert list(run.metrics()["validation/pass@1"].dropna().index) == [0, 2, 3, 6]
    columns = [name for name in trace(whole) if name.startswith("train/")]
    assert_frame_equal(trace(run)[columns], trace(whole)[columns], check_exact=True)
    ours, theirs = final_state(run), final_state(whole)
    assert all(equal(ours[name], theirs[name]) for name in ("policy", "optimizer", "rng", "kl", "curriculum"))


def test_fewer_updates_than_a_run_has_are_refused_and_as_many_end_it(train, new_run):
    run, constant = new_run(), {"schedule": "constant", "checkpoint_every": 1, "keep_last": 9}
    with pytest.raises(InterruptedError):
        train(meet(make_policy(), stop, update=5, forward=0), run=run, updates=6, **constant)
    with pytest.raises(RunError, match=r"trained for 4 updates, and ppo\.updates is 3\. Raise it to at least 4"):
        train(run=run, updates=3, **constant)
    result = train(run=run, updates=4, **constant)
    assert result.progress.finished == "complete after 4 updates"
    assert run.metrics()["validation/pass@1"].dropna().index[-1] == 4


def test_where_the_rate_falls_the_number_of_updates_belongs_to_the_run(train, new_run):
    run = new_run()
    train(run=run, updates=3)
    with pytest.raises(RunError, match=r"ppo\.updates was 3, now 6"):
        train(run=run, updates=6)


@pytest.mark.parametrize("value", ["head", "network"])
def test_a_new_run_of_a_trained_policy_is_the_first_one_again(train, new_run, value):
    """As cells of a notebook that are run again with resume="never"."""
    first, second, third, policy = new_run(), new_run(), new_run(), make_policy(value=value)
    start = {name: one.clone() for name, one in policy.actor.state_dict().items()}
    reference = reference_of(policy)
    train(policy, reference, run=first)
    assert not equal(start, dict(policy.actor.state_dict()))
    train(policy, reference, run=second)  # the cell of PPO alone
    again = reference_of(policy)  # the cell of the reference, too
    assert all(torch.equal(one, start[name.removeprefix("actor.")]) for name, one in zip(again.names, again.buffers()))
    train(policy, again, run=third)
    for run in (second, third):
        assert_frame_equal(trace(run), trace(first), check_exact=True)
        assert equal(final_state(run), final_state(first))


def test_a_policy_that_took_up_a_run_begins_again_as_that_run_did(train, new_run):
    first, second, other = new_run(), new_run(), make_policy(seed=5)
    train(run=first, updates=3, schedule="constant")
    train(other, run=first, schedule="constant")
    train(other, reference_of(other), run=second, updates=3, schedule="constant")
    kept = [Checkpoints(run.path / "checkpoints" / "reference").last().load() for run in (first, second)]
    assert equal(*kept)
    assert_frame_equal(trace(second), trace(first).loc[:3], check_exact=True)


# Parts


def test_parts_may_change_between_sessions_and_hardly_change_what_is_learned(train, new_run):
    whole, run = new_run(), new_run()
    train(run=whole, restore_best=False)
    with pytest.raises(InterruptedError):
        train(meet(make_policy(), stop, update=4, forward=0), run=run, checkpoint_every=1, restore_best=False)
    train(run=run, micro_batch_prompts=1, restore_best=False)
    assert_frame_equal(trace(run), trace(whole), rtol=1e-3, atol=1e-5)
    weights = [final_state(one)["policy"] for one in (run, whole)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)
    assert not equal(*weights)


def test_programs_are_drawn_a_few_at_a_time_in_rollouts_and_evaluations(train, new_run, monkeypatch):
    rows, sample = [], CodePolicy.sample

    def counted_sample(policy, prompts, mask, n, config, generator):
        rows.append((len(prompts), n))
        return sample(policy, prompts, mask, n, config, generator)

    monkeypatch.setattr(CodePolicy, "sample", counted_sample)
    train(updates=1, sample_batch=8, eval_every=1)
    evaluation = [(4, 2), (4, 1)] * 2  # 8 tasks of 2 programs, 4 at a time, each with the greedy one
    assert rows == [*evaluation, (2, 4), (2, 4), *evaluation]


def test_a_watcher_speaks_after_each_evaluation_and_changes_no_draw(train, new_run, capsys):
    run, whole = new_run(), new_run()

    def watch(update):
        return f"drew {torch.randint(10, (1,)).item()} after {checkpoints(run).last().step}"

    train(run=run, watch=watch)
    train(run=whole)
    assert re.findall(r"(update \d): drew \d after (\d)", capsys.readouterr().out) == [
        ("update 3", "0"),
        ("update 6", "3"),
    ]
    assert_frame_equal(trace(run), trace(whole), check_exact=True)


# Several processes


def share_of_a_lesson(rank, world):
    """What a process of a `world` of them learns from 8 prompts with 4 answers each: the same for any world.

    Weights after two passes of one minibatch, what the passes told, whitened values, and the share of variance.
    """
    policy = make_policy(dropout=0.0)
    config = PPOConfig(**SETTINGS | {"prompts": 8, "minibatches": 1, "entropy_weight": 0.1})
    prompts, prompt_mask = pad_left([one.prompt for one in make_problems()[1]], TOKENIZER.pad_id)
    draw = torch.Generator().manual_seed(0)
    allowed = torch.tensor([one for one in range(TOKENIZER.vocab_size) if one not in TOKENIZER.banned])
    ids = allowed[torch.randint(len(allowed), (32, 3), generator=draw)]
    mask = torch.arange(3) < torch.randint(1, 4, (32, 1), generator=draw)
    with torch.no_grad():
        logprobs, _, values = policy(prompts, prompt_mask, ids, mask, config.sample)
    noise, advantages, returns = (torch.randn(32, 3, generator=draw) for _ in range(3))
    whole = Trajectories(prompts, prompt_mask, ids, mask, logprobs + 0.1 * noise, values + noise, advantages, returns)
    own = whole.part(torch.arange(rank, 8, world))
    fabric = make_fabric(choose("cpu", "fp32"))
    total = partial(fabric.all_reduce, reduce_op="sum")
    whitened = ppo.whiten(own.advantages, own.mask, total=total)
    explained = ppo.explained_variance(own.values, own.returns, own.mask, total=total)
    wrapped = fabric.setup(policy, make_optimizer(policy, config, torch.device("cpu"), "fp32"))
    told = ppo.optimise(*wrapped, own, config, fabric=fabric, generator=torch.Generator().manual_seed(rank))
    return {"weights": policy.state_dict(), "told": told, "whitened": whitened, "explained": explained}


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_learn_as_one_and_resume_exactly(new_run, tmp_path):
    whole, broken = new_run(), new_run()
    # One of the two is told to stop in its second update; both do, and the broken run is as the whole one in the end.
    settings = {"checkpoint_every": 1, "stop_kl": 0.05, "lr": 0.02}
    stop = {"at": {"forward": FORWARDS + 1}, "number": signal.SIGTERM, "rank": 1}
    sessions = [{"run": str(whole.path)}, {"run": str(broken.path), **stop}, {"run": str(broken.path)}]
    sessions = [{"settings": settings, **one} for one in sessions]
    sessions.append({"run": str(new_run().path), "settings": {"minibatches": 4}})  # of 4 prompts, 2 a process
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("ppo_child.py")), json.dumps(sessions), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [re.findall(rf"process {rank} session (\d) weights (\w+) of update (\d+)", done.stdout) for rank in (0, 1)]
    assert told[0] == told[1]  # alike in both, session by session
    assert [(number, update) for number, _, update in told[0]] == [("0", "6"), ("1", "2"), ("2", "6")]
    assert done.stdout.count("session 3 refused: 4 prompts cannot be cut into 4 minibatches of equally many") == 2
    assert [entry["from_step"] for entry in broken.stamp["sessions"]] == [0, 2]
    assert [entry["processes"] for entry in broken.stamp["sessions"]] == [2, 2]
    assert_frame_equal(trace(broken), trace(whole), check_exact=True)
    assert equal(final_state(broken), final_state(whole))
    assert len(final_state(whole)["rng"]) == 2
    assert list(trace(whole)["train/episodes"].dropna()) == [16, 32, 48, 64, 80, 96]

    alone = share_of_a_lesson(0, 1)
    shares = [torch.load(tmp_path / f"lesson{rank}.pt") for rank in (0, 1)]
    torch.testing.assert_close(shares[0]["weights"], alone["weights"])
    torch.testing.assert_close(shares[0]["told"], alone["told"])
    assert equal(shares[1]["weights"], shares[0]["weights"])
    assert shares[1]["told"] == shares[0]["told"]
    whitened = torch.zeros(8, 4, 3)  # by prompt
    for rank, share in enumerate(shares):
        part = share["whitened"].view(4, 4, -1)
        whitened[rank::2, :, : part.shape[2]] = part
        torch.testing.assert_close(share["explained"], alone["explained"])
    torch.testing.assert_close(whitened.flatten(0, 1), alone["whitened"])
