"""Configs: precedence, errors that name the key, round trips, fingerprints."""

import pytest
from pydantic import ValidationError

from utils.core.config import Config, ConfigError, flatten


class Inner(Config):
    lr: float = 1e-3
    steps: int = 10


class Outer(Config):
    name: str = "default"
    train: Inner = Inner()
    other: Inner | None = None
    ratios: tuple[float, ...] = (0.9, 0.1)


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_later_sources_win_key_by_key(tmp_path):
    path = write(tmp_path, "name: yaml\ntrain:\n  lr: 0.5\n")
    assert Outer.load().train == Inner(lr=1e-3, steps=10)
    assert Outer.load(path).train == Inner(lr=0.5, steps=10)
    assert Outer.load(path, ["train.lr=0.25"]).train == Inner(lr=0.25, steps=10)
    loaded = Outer.load(path, ["train.lr=0.25", "name=override"], train={"lr": 0.125})
    assert loaded == Outer(name="override", train=Inner(lr=0.125, steps=10))
    assert loaded.replace(["train.steps=7"], name="keyword") == Outer(name="keyword", train=Inner(lr=0.125, steps=7))


@pytest.mark.parametrize("source", ["yaml", "override", "keyword"])
@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("train.lrr", "train.lr"),
        ("trian.lr", "train"),
        ("nmae", "name"),
        ("other.step", "other.steps"),
        ("lr", "train.lr"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_valid_one(tmp_path, source, wrong, nearest):
    head, _, leaf = wrong.partition(".")
    values = {head: {leaf: 1} if leaf else 1}
    text = f"{head}:\n  {leaf}: 1\n" if leaf else f"{head}: 1\n"
    # An unknown section is reported itself, whatever stands in it.
    named = wrong if head in Outer.model_fields else head
    arguments = {
        "yaml": {"path": write(tmp_path, text)},
        "override": {"overrides": [f"{wrong}=1"]},
        "keyword": values,
    }
    with pytest.raises(ConfigError) as caught:
        Outer.load(**arguments[source])
    assert f"unknown setting {named!r}; did you mean {nearest!r}?" in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.steps=many"], "train.steps"),
        (["train.lr"], "not of the form key=value"),
        (["train.lr=[1"], "not valid YAML"),
        (["train=3"], "train"),
        (["ratios={a: 1, a: 2}"], "key given twice: a"),
    ],
)
def test_an_unusable_override_says_which(overrides, message):
    with pytest.raises(ConfigError, match=message):
        Outer.load(overrides=overrides)


@pytest.mark.parametrize("text", ["3e-4", "3E-4", "+3.e-4", "0.0003", "3.0e-4"])
def test_every_way_to_write_a_number_is_a_float(tmp_path, text):
    assert Outer.load(write(tmp_path, f"train:\n  lr: {text}\n")).train.lr == 0.0003
    assert Outer.load(overrides=[f"train.lr={text}"]).train.lr == 0.0003


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\ntrain: {}\nname: b\n", "key given twice: name"),
        ("train:\n  lr: 1\n  lr: 2\n", "key given twice: lr"),
        ("- 1\n", "holds a list"),
        ("name: [\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_of_settings_is_refused_by_name(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        Outer.load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="No config file at"):
        Outer.load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("name", ["1234e5", "3e-4", "true", "null", "0x1f", "zwölf", "a: b", "", "2026-08-01", "1_000"])
def test_what_is_saved_is_read_back_equal(tmp_path, name):
    config = Outer(name=name, train=Inner(lr=1e-5), other=Inner(lr=1e16), ratios=(0.5, 0.25, 0.25))
    again = Outer.load(config.save(tmp_path / "saved.yaml"))
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_equal_configs_have_equal_fingerprints_and_different_ones_different(tmp_path):
    first = Outer.load(write(tmp_path, "name: a\ntrain: {lr: 1, steps: 2}\n"))
    assert first.fingerprint() == Outer.load(write(tmp_path, "train: {steps: 2, lr: 1.0}\nname: a\n")).fingerprint()
    changed = [first, *(first.replace([text]) for text in ("name=b", "train.lr=1.0000001", "other={}", "ratios=[1]"))]
    assert len({config.fingerprint() for config in changed}) == 5


def test_a_config_is_frozen_at_every_level():
    config = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "b"
    with pytest.raises(ValidationError, match="frozen"):
        config.train.lr = 1.0


def test_values_are_escaped_in_the_table():
    assert "<td>&lt;b&gt;</td>" in Outer(name="<b>")._repr_html_()
    assert ("train.lr", 1e-3) in flatten(Outer().model_dump())
