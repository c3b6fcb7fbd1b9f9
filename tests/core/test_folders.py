"""A folder is there whole or not at all."""

import pytest

from utils.core.folders import written_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_is_there_when_all_is_written_and_not_before(tmp_path):
    folder = tmp_path / "deep" / "data"
    with written_whole(folder) as writing:
        (writing / "a").write_text("1")
        assert not folder.exists()
        assert writing.parent == folder.parent  # on one disk, so that the last step is one rename
    assert names(tmp_path / "deep") == ["data"]
    assert (folder / "a").read_text() == "1"


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing_and_its_error_travels(tmp_path, error):
    with pytest.raises(error), written_whole(tmp_path / "data") as writing:  # noqa: PT012
        (writing / "a").write_text("1")
        raise error
    assert names(tmp_path) == []


def test_of_two_writers_the_first_gives_the_folder(tmp_path):
    with written_whole(tmp_path / "data") as late:
        (late / "a").write_text("late")
        with written_whole(tmp_path / "data") as early:
            (early / "a").write_text("early")
    assert (tmp_path / "data" / "a").read_text() == "early"
    assert names(tmp_path) == ["data"]


def test_a_name_that_is_a_file_already_is_refused(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(OSError, match="data"), written_whole(tmp_path / "data") as writing:  # noqa: PT012
        (writing / "a").write_text("1")
    assert (tmp_path / "data").read_text() == "mine"
    assert names(tmp_path) == ["data"]
