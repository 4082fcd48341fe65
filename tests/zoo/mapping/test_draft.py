"""Rows of an unfinished map on the disk: what an interruption leaves of them."""

import numpy as np
import pytest

from datamodules.errors import UserError
from zoo.mapping.draft import Draft

ROWS = {"class": 5, "probability": 20}


def rows(count, value=1):
    return {"class": np.full((count, 5), value, dtype=np.uint8), "probability": np.full((count, 5), value, dtype=np.float32)}


@pytest.fixture
def path(tmp_path):
    with Draft(tmp_path / "p.tif", "one", ROWS) as draft:
        draft.append(rows(3))
        draft.append(rows(2, 2))
    return tmp_path / "p.tif"


def test_a_draft_goes_on_after_its_finished_rows(path):
    folder = path.parent / ".p.tif.partial"
    with (folder / "journal").open("ab") as journal:
        journal.write(b"14")  # cut short, and no part of the number that comes next
    with (folder / "class.raw").open("ab") as raw:
        raw.write(b"half a row")
    for expected in (5, 6):
        with Draft(path, "one", ROWS) as draft:
            assert (draft.rows, draft.outdated) == (expected, False)
            draft.append(rows(1, 3))
    assert (folder / "journal").read_bytes() == b"one\n3\n5\n6\n7\n"
    np.testing.assert_array_equal(np.fromfile(folder / "class.raw", dtype=np.uint8), np.repeat([1, 1, 1, 2, 2, 3, 3], 5))


def test_rows_that_are_not_on_the_disk_are_not_believed(path):
    with (path.parent / ".p.tif.partial" / "probability.raw").open("r+b") as raw:
        raw.truncate(50)
    with Draft(path, "one", ROWS) as draft:
        assert draft.rows == 2


def test_a_draft_of_other_inputs_is_thrown_away(path):
    with Draft(path, "other", ROWS) as draft:
        assert (draft.rows, draft.outdated) == (0, True)
        assert draft.file("class").stat().st_size == 0
        draft.discard()
    assert not list(path.parent.iterdir())


def test_a_draft_has_one_writer(path):
    with Draft(path, "one", ROWS), pytest.raises(UserError, match="another process is writing this map"):
        Draft(path, "one", ROWS)


def test_a_full_disk_is_said_in_a_line_and_keeps_the_rows_before(path, monkeypatch):
    with Draft(path, "one", ROWS) as draft:

        def full(descriptor):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(UserError, match="No space left on device.*finished rows are kept"):
                draft.append(rows(1))
    with Draft(path, "one", ROWS) as draft:
        assert draft.rows == 5
