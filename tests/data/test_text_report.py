"""What may be wrong with a text is counted: repeated lines, characters that training never meets, empty parts."""

from utils.data.loaders import DataConfig, prepare
from utils.data.text_report import text_report


def checks(tmp_path, text, splits=(0.5, 0.25, 0.25)):
    path = tmp_path / "text.txt"
    path.write_text(text)
    report = text_report(prepare(DataConfig(corpus=str(path), splits=splits, block_size=8), tmp_path / "data"))
    return {check.name: check for check in report.checks}


def line(number):
    return f"{number:04d} is a number, and so it is\n"  # 30 characters and the line's end


def test_a_text_of_lines_of_its_own_passes(tmp_path):
    found = checks(tmp_path, "".join(map(line, [*range(1000, 1080), *range(1100, 1140)])))
    assert {check.status for name, check in found.items() if name != "characters"} == {"pass"}
    assert "0 of 60 in train repeat another, and 0 of 60 in" in found["lines"].summary


def test_lines_that_repeat_another_or_are_in_train_are_counted(tmp_path):
    # 40 lines: of the first 20, five are repeats; of the other 20, four are in train.
    numbers = [*range(15), *range(5), *range(100, 116), *range(4)]
    found = checks(tmp_path, "".join(map(line, numbers)))["lines"]
    assert found.status == "warn"
    assert "5 of 20 in train repeat another, and 4 of 20 in" in found.summary


def test_a_character_that_training_never_meets_is_named(tmp_path):
    found = checks(tmp_path, "ab" * 50 + "a" * 50 + "z" * 50)["characters"]
    assert found.status == "warn"
    assert found.summary == "1 character of validation or test are not in train: 'z'"


def test_a_split_without_text_is_named(tmp_path):
    found = checks(tmp_path, "ab" * 50 + " " * 100)
    assert found["parts"].summary == "no text in validation, test: nothing is measured there"
