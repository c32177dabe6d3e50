import os

import pytest

from corrsteer.errors import ArtifactError
from corrsteer.execution.journal import Journal

HEADER = {"task": "t", "settings": {"seed": 1, "layers": (1, 2)}}


def test_records_survive(tmp_path):
    path = tmp_path / "new" / "journal"
    journal = Journal(path, HEADER)
    assert journal.records == []
    assert not path.exists()
    journal.add({"run": 0, "pair": (1, None)})
    journal.add({"run": 1})
    again = Journal(path, HEADER)
    assert again.records == journal.records == [{"run": 0, "pair": [1, None]}, {"run": 1}]
    again.remove()
    assert not path.exists()


def test_a_line_that_was_cut_off_does_not_count(tmp_path):
    path = tmp_path / "journal"
    journal = Journal(path, HEADER)
    journal.add({"run": 0})
    whole = path.read_bytes()
    journal.add({"run": 1})
    path.write_bytes(path.read_bytes()[:-4])
    again = Journal(path, HEADER)
    assert again.records == [{"run": 0}]
    assert path.read_bytes() == whole
    again.add({"run": 1})
    assert Journal(path, HEADER).records == [{"run": 0}, {"run": 1}]


def test_other_work_is_refused_with_what_differs(tmp_path):
    path = tmp_path / "journal"
    Journal(path, HEADER).add({})
    with pytest.raises(ArtifactError, match=r"other work \(seed is 1 there, 2 here\); give"):
        Journal(path, {**HEADER, "settings": {"seed": 2, "layers": (1, 2)}})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("[5, 6]", "[5, 7]"),
        lambda text: text.replace("[5, 6]", "null"),
        lambda text: text.replace('"record"', '"recorded"'),
        lambda text: text.splitlines()[0] + '\n{"run": [5, 6]}\n',
        lambda text: text.splitlines()[0] + "\n[1]\n",
        lambda text: text.splitlines()[0] + "\n" + "[" * 100_000 + "\n",
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path, change):
    path = tmp_path / "journal"
    Journal(path, HEADER).add({"run": [5, 6], "r": float("nan")})
    assert len(Journal(path, HEADER).records) == 1
    path.write_text(change(path.read_text()))
    with pytest.raises(ArtifactError, match="remove it to start anew"):
        Journal(path, HEADER)


@pytest.mark.parametrize("content", [b"", b"no newline", b"{}\nnot json\n", b"\xff\n"])
def test_what_is_no_journal_is_refused(tmp_path, content):
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        Journal(path, HEADER)


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(ArtifactError, match="a pipe or a device, not a file"):
        Journal(tmp_path / "journal", HEADER)


def test_a_place_that_cannot_be_written_to_is_told_of(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="choose another --out"):
        Journal(tmp_path / "file" / "journal", HEADER).add({})
