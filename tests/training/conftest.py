"""A tiny corpus, a tiny GPT, and runs of them; `child.py` trains the same in processes of its own."""

import hashlib
import random

import pytest

from utils.core import repro
from utils.core.checkpoints import Checkpoints
from utils.core.run import Run
from utils.data.loaders import DataConfig, prepare
from utils.models.blocks import TransformerConfig
from utils.models.transformer import GPT
from utils.training.config import TrainConfig
from utils.training.fit import fit
from utils.training.objectives import next_token

SETTINGS = {
    "max_steps": 10,
    "batch_size": 6,
    "lr": 1e-2,
    "warmup_steps": 3,
    "log_every": 1,
    "eval_every": 5,
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_minutes": None,
    "trackers": (),
}


def make_data(root, seed=0):
    """500 random characters; 400 to train on, 50 or 51 rows of 8, so 9 batches of 6 an epoch, the last one ragged."""
    text = root / f"text{seed}.txt"
    if not text.exists():
        text.write_text("".join(random.Random(seed).choices("abcdefgh \n", k=500)))
    return prepare(DataConfig(corpus=str(text), block_size=8, splits=(0.8, 0.1, 0.1)), root / "data")


def make_model(seed=0, **shape):
    repro.seed_everything(seed)
    sizes = {"vocab_size": 10, "context_length": 8, "num_layers": 2, "num_heads": 2, "width": 16}
    return GPT(TransformerConfig(**sizes | shape))


def digest(weights):
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in weights.values())).hexdigest()


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Of every test here."""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def other_data(tmp_path):
    return make_data(tmp_path, seed=1)


@pytest.fixture
def tiny_model():
    return make_model


@pytest.fixture
def settings():
    """A `TrainConfig` of the tiny run, with changes."""
    return lambda **changes: TrainConfig(**SETTINGS | changes)


@pytest.fixture
def new_run(tmp_path, settings):
    return lambda: Run.create(tmp_path, "tiny", settings())


@pytest.fixture
def train(data, new_run, settings):
    """`fit` on what is given and the tiny run's defaults for the rest."""
    default = data

    def train(model=None, objective=next_token, data=None, run=None, sample=None, parent=None, **changes):
        config, run = settings(**changes), run or new_run()
        return fit(model or make_model(), objective, data or default, run, config, sample=sample, parent=parent)

    return train


def measured(run):
    """A run's metrics without those of the machine."""
    metrics = run.metrics()
    return metrics.drop(columns=[name for name in metrics if name.startswith("system/")])


@pytest.fixture
def trace():
    """What a run logged, but for times: bit for bit what training did, step by step."""
    return lambda run: measured(run).drop(columns=["train/tokens_per_second", "train/mfu"])


@pytest.fixture
def final_weights():
    """sha256 of the weights in a run's newest checkpoint."""
    return lambda run: digest(Checkpoints(run.path / "checkpoints").last().load()["model"])
