"""Writing whole: on other file systems, over links, through kills, and what kills leave."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from corrsteer import files
from corrsteer.errors import ArtifactError
from corrsteer.files import (
    check_free,
    check_place,
    contents,
    own_folder,
    place_of,
    unfinished_place,
    whole_folder,
    write_whole,
)


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of another file system than that of `tmp_path`."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def write_two(folder):
    with whole_folder(folder, last="end") as whole:
        (whole / "end").write_text("2")
        (whole / "begin").write_text("1")


def text_of(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def killed(code, *arguments):
    """Run code that kills itself, with `die()` to do so."""
    die = "def die(*_):\n    import os\n    os.kill(os.getpid(), 9)\n"
    head = f"import sys\nfrom pathlib import Path\nfrom corrsteer import files\n{die}"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    assert subprocess.run(command).returncode == -signal.SIGKILL


TWO = """
with files.whole_folder(Path(sys.argv[1]), last="end") as whole:
    (whole / "end").write_text("new")
    (whole / "begin").write_text("new")
"""


def test_a_link_to_another_file_system_is_written_to(tmp_path, elsewhere):
    (tmp_path / "there").symlink_to(elsewhere)
    write_two(tmp_path / "there")
    assert text_of(elsewhere) == {"begin": "1", "end": "2"}
    write_two(tmp_path / "there" / "new" / "folder")
    assert text_of(elsewhere / "new" / "folder") == {"begin": "1", "end": "2"}
    write_whole(tmp_path / "there" / "file", "x")
    assert (elsewhere / "file").read_text() == "x"
    (tmp_path / "own").symlink_to(elsewhere / "own")
    (elsewhere / "own").mkdir()
    assert unfinished_place(tmp_path / "own") == elsewhere / "own.partial"


def test_nothing_is_moved_between_a_volume_and_its_parent(tmp_path, monkeypatch):
    volume = tmp_path / "volume"
    volume.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == volume)
    moved = os.replace

    def replace(source, target):
        if Path(source).is_relative_to(volume) != Path(target).is_relative_to(volume):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        moved(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert unfinished_place(volume) == volume / ".partial"
    (volume / ".partial").mkdir()
    assert contents(volume) == set()
    assert check_free(volume) == volume
    write_two(volume)
    assert contents(volume) == {"begin", "end"}


def test_a_new_folder_appears_at_once(tmp_path, monkeypatch):
    seen = []
    moved = os.replace

    def replace(source, target):
        seen.append({path.name for path in Path(source).iterdir()})
        moved(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_two(tmp_path / "new")
    assert seen == [{"begin", "end"}]


def test_in_a_folder_that_is_there_the_last_file_is_last(tmp_path):
    killed(
        "moved = Path.replace\n"
        "Path.replace = lambda path, to: moved(path, to) if path.name == 'begin' else die()\n"
        + TWO,
        tmp_path,
    )
    assert contents(tmp_path) == {"begin"}
    write_two(tmp_path)
    assert text_of(tmp_path) == {"begin": "1", "end": "2"}


def test_a_link_that_leads_nowhere_is_told_of(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path / "link", tmp_path / "link" / "run", tmp_path / "loop"):
        for check in (place_of, check_place, check_free, unfinished_place):
            with pytest.raises(ArtifactError, match=r"is a link to .*, which is not there; make"):
                check(path)
    with pytest.raises(ArtifactError, match="which is not there"):
        write_whole(tmp_path / "link" / "file", "x")
    with pytest.raises(ArtifactError, match="which is not there"):
        write_two(tmp_path / "link")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("length", [240, 247, 248, 250, 255])
def test_the_longest_names_can_be_written(tmp_path, length):
    folder = tmp_path / ("ä" * (length // 2 - 1) + "a" * (length - 2 * (length // 2 - 1)))
    assert len(os.fsencode(folder.name)) == length
    check_place(folder)
    unfinished_place(folder).mkdir()
    write_two(folder)
    write_whole(folder / folder.name, "x")
    assert contents(folder) == {"begin", "end", folder.name}


def test_longer_names_are_refused_before_any_work(tmp_path):
    for path in (tmp_path / ("a" * 256), tmp_path / "new" / ("a" * 256) / "run"):
        with pytest.raises(ArtifactError, match="File name too long; choose another --out"):
            check_place(path)


def test_home_is_followed_where_things_are_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_two(Path("~/new"))
    write_whole(Path("~/file"), "x")
    assert contents(tmp_path) == {"new", "file"}
    assert place_of("~nobody-of-this-name/x") == Path.cwd() / "~nobody-of-this-name" / "x"


def test_a_place_below_a_file_or_in_a_locked_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="file is a file"):
        check_place(tmp_path / "file" / "run")
    with pytest.raises(ArtifactError, match="exists already"):
        check_free(tmp_path / "file")
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(files, "can_write", lambda folder: folder != tmp_path)
    with pytest.raises(ArtifactError, match="cannot write to"):
        check_place(tmp_path / "new")
    assert unfinished_place(tmp_path / "run") == tmp_path / "run" / ".partial"


def test_what_a_kill_left_is_removed_at_the_next_write(tmp_path):
    killed(f"{TWO}    die()\n", tmp_path / "run")
    killed("Path.replace = die\nfiles.write_whole(Path(sys.argv[1]), 'x')\n", tmp_path / "file")
    assert contents(tmp_path) == set()
    assert len(list(tmp_path.iterdir())) == 1  # the second has removed what the first left
    write_whole(tmp_path / "other", "x")
    assert text_of(tmp_path) == {"other": "x"}


def test_what_another_process_is_at_is_left_alone(tmp_path):
    code = (
        "import sys; from pathlib import Path; from corrsteer import files\n"
        "with files.own_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'x').touch(); print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == "in\n"
        with own_folder(tmp_path):
            write_whole(tmp_path / "file", "x")
            assert len(list(tmp_path.iterdir())) == 3
        assert len(list(tmp_path.glob(".corrsteer-*/x"))) == 1
        other.communicate()
    assert text_of(tmp_path) == {"file": "x"}


def test_names_like_ours_that_are_not_ours_are_left_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_text("x")
    (tmp_path / ".corrsteer-link").symlink_to(tmp_path / "precious")
    (tmp_path / ".corrsteer-file").write_text("x")
    write_whole(tmp_path / "file", "x")
    assert (tmp_path / "precious" / "x").read_text() == "x"
    assert (tmp_path / ".corrsteer-link").is_symlink()
    assert (tmp_path / ".corrsteer-file").read_text() == "x"


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "x")))
    with pytest.raises(ArtifactError, match="free some space"):
        write_whole(path, "new")
    assert text_of(tmp_path) == {"file": "old"}


def test_files_and_folders_are_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain").write_text("x")
    (tmp_path / "folder").mkdir()
    write_whole(tmp_path / "ours", "x")
    write_two(tmp_path / "new")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "folder").stat().st_mode
