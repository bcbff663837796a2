"""Files: whole or not at all, under names that nobody can foresee; one owner of a folder; nothing to wait for."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from kodm_lite import files
from kodm_lite.files import open_regular, owned, write_atomically

OWN = """
import sys, time
from pathlib import Path
from kodm_lite.files import owned
with owned(Path(sys.argv[1])):
    print("owns", flush=True)
    time.sleep(600)
"""


def test_an_interruption_leaves_the_older_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a" / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *both: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]


def test_no_link_is_followed_and_no_name_can_be_foreseen(tmp_path, monkeypatch):
    victim, parts = tmp_path / "victim", []
    victim.write_bytes(b"mine")
    for name in ("x", "x.part"):
        (tmp_path / name).symlink_to(victim)
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: (parts.append(part.name), real(part, path)))
    for _ in range(2):
        write_atomically(tmp_path / "x", b"new")
    assert victim.read_bytes() == b"mine" and (tmp_path / "x").read_bytes() == b"new"
    assert len(set(parts)) == 2
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 16)
    (tmp_path / f".x-{'0' * 16}.part").symlink_to(victim)
    with pytest.raises(OSError, match="cannot be written"):
        write_atomically(tmp_path / "x", b"newer")
    assert victim.read_bytes() == b"mine"


def test_bytes_that_did_not_arrive_are_noticed(tmp_path, monkeypatch):
    path, real = tmp_path / "x", os.fsync
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (os.truncate(descriptor, 100), real(descriptor)))
    with pytest.raises(OSError, match=r"cannot be written \(100 of 3000 bytes arrived\)"):
        write_atomically(path, bytes(3000))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_a_disk_takes_is_written(tmp_path):
    path = tmp_path / ("é" * 127)
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_atomically(files.Path("~/x"), b"there")
    assert (tmp_path / "x").read_bytes() == b"there"
    with open_regular("~/x") as file:
        assert file.read() == b"there"


@pytest.mark.parametrize(("kind", "got"), [("pipe", "pipe or device"), ("folder", "folder"), ("none", "no such file")])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind, got):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(ValueError, match=rf"got (a )?{got}, expected a state; try"):
        open_regular(path, "a state")


def test_a_device_is_refused():
    with pytest.raises(ValueError, match="pipe or device"):
        open_regular("/dev/zero")


@pytest.mark.parametrize("where", ["here", "in another process"])
def test_a_folder_has_one_owner(tmp_path, where):
    if where == "here":
        with owned(tmp_path):
            refused(tmp_path, os.getpid())
    else:
        other = subprocess.Popen([sys.executable, "-c", OWN, tmp_path], stdout=subprocess.PIPE)
        try:
            assert other.stdout.readline() == b"owns\n"
            refused(tmp_path, other.pid)
        finally:
            other.send_signal(signal.SIGKILL)
            other.wait()
        assert list(tmp_path.iterdir()) == [tmp_path / files.LOCK], "which is stale now"
    with owned(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def refused(folder, process):
    with pytest.raises(ValueError, match=f"out: got {folder}, in which process {process} trains, .*; try another"):
        with owned(folder):
            pytest.fail("two owners")


def test_the_owner_removes_what_a_crash_left_but_nothing_that_is_being_written(tmp_path):
    (tmp_path / "models").mkdir()
    old = [tmp_path / f".state-{'1' * 16}.part", tmp_path / "models" / f".x-{'a' * 16}.part"]
    others = [tmp_path / "mine.part", tmp_path / f".x-{'a' * 15}.part"]
    for path in (*old, *others):
        path.write_bytes(b"x")
    with files.written_atomically(tmp_path / "y") as file:
        file.write(b"y")
        with owned(tmp_path):
            assert not any(path.exists() for path in old) and all(path.exists() for path in others)
    assert (tmp_path / "y").read_bytes() == b"y"


def test_a_lock_that_is_no_file_and_a_folder_that_is_none(tmp_path):
    os.mkfifo(tmp_path / files.LOCK)
    with pytest.raises(ValueError, match="which is no file"), owned(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="there is a file where a folder is expected"), owned(tmp_path / "file"):
        pass
    with pytest.raises(IsADirectoryError, match="there is a folder where a file is expected"):
        (tmp_path / "folder").mkdir()
        write_atomically(tmp_path / "folder", b"")


def test_a_disk_without_locks_is_told_of(tmp_path, monkeypatch):
    def none(descriptor):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files, "_lock", none)
    with pytest.warns(UserWarning, match="a disk without locks"), owned(tmp_path):
        write_atomically(tmp_path / "x", b"x")
