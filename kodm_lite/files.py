"""Files that an interruption, a full disk, or a second process cannot spoil.

What is written is there as a whole or not at all; what is read is a file and nothing that could be waited for; and one
training owns its folder.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import stat
import sys
import warnings
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_regular", "owned", "place", "storing", "write_atomically", "written_atomically"]

LOCK = "training.lock"
_PART = re.compile(r"\..{0,30}-[0-9a-f]{16}\.part", re.DOTALL)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of some network disks

#: So that no link is followed and no child holds a file open; a system that lacks a flag does not need it.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def place(path: str | PathLike[str]) -> Path:
    """A path as people write it, "~" being home."""
    if not isinstance(path, str | PathLike):
        raise ValueError(f"path: got {path!r:.60}, expected the name of a file or folder; try str(path)")
    return Path(path).expanduser()


def open_regular(path: str | PathLike[str], expected: str = "a file") -> io.BufferedReader:
    """Open a file for reading; a pipe or a device, which could make a program wait for ever, is refused.

    Args:
        path: of the file; a link is followed.
        expected: what it should be, for the message.

    Raises:
        ValueError: there is none, or it is something else.
        OSError: the disk.
    """
    path = place(path)
    if path.is_dir() or not path.exists():
        got = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"got {got}, expected {expected}; try another path")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | (_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    try:
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        if error.errno != errno.ENXIO:  # of a socket
            raise
        raise ValueError(f"got a socket, expected {expected}; try another path") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"got a pipe or device, expected {expected}; try another path")
    return file


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all; see :func:`written_atomically`.

    Raises:
        OSError: names the file; an older one is as it was.
    """
    with written_atomically(path) as file:
        file.write(content)


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place once all of it is on the disk.

    Until then it lies in the same folder under a name that nobody can foresee, as no link.  A crash leaves it there;
    the next training in that folder removes it.

    Raises:
        OSError: names the file; an older one is as it was.
    """
    path = place(path)
    temporary = path.with_name(f".{path.stem[:30]}-{secrets.token_hex(8)}.part")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with contextlib.suppress(OSError):  # of a disk without locks
                    _lock(descriptor)  # tells that it is no left-over
                yield file
                expected = file.tell()
                file.flush()
                os.fsync(descriptor)
                if (size := os.fstat(descriptor).st_size) != expected:
                    raise OSError(errno.EIO, f"{size} of {expected} bytes arrived")
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                temporary.unlink()  # a full disk needs the room
            raise
        _settle(path.parent)


def _settle(folder: Path) -> None:
    """Have the names of a folder on the disk too, where a system can do that."""
    with contextlib.suppress(PermissionError, IsADirectoryError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a disk that cannot; the content is safe
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Make every error of the disk say which file could not be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        advice = "make room or choose another folder, and run the same command again"
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            advice = "there is a file where a folder is expected; choose another folder"
        elif isinstance(error, IsADirectoryError):
            advice = "there is a folder where a file is expected; choose another name"
        reason = f"cannot be written ({error.strerror or error}); what was saved before is kept; {advice}"
        raise OSError(error.errno, reason, str(path)) from error


@contextlib.contextmanager
def owned(folder: Path | None) -> Iterator[None]:
    """Keep a folder to this process for as long as it lasts, and remove what a crash left half written.

    The system drops the lock when a process ends in whatever way, so that a lock file is stale by itself.

    Args:
        folder: made if it is not there; None owns nothing.

    Raises:
        ValueError: another training has it; names its process.
        OSError: the folder cannot be written.
    """
    if folder is None:
        yield
        return
    file = _locked(folder)
    try:
        _remove_left_overs(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            if sys.platform != "win32":  # which removes no open file
                (folder / LOCK).unlink()
        file.close()


def _locked(folder: Path) -> BinaryIO:
    path = folder / LOCK
    while True:
        with storing(path):
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | _FLAGS
            file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"out: got {path}, which is no file, expected a lock of a training; try to remove it")
            if not _lock(file.fileno()):
                process = file.read(20).decode("ascii", "replace").strip() or "unknown"
                raise ValueError(
                    f"out: got {folder}, in which process {process} trains, expected a folder that nobody uses; try "
                    "another one, or wait until it ends"
                )
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            warnings.warn(f"{folder} is on a disk without locks; take care to start one training only", stacklevel=4)
        except ValueError:
            file.close()
            raise
        # An owner that ended since removed the file that was opened here.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                file.truncate(0)
                file.write(f"{os.getpid()}\n".encode())
                return file
        file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        """Whether nobody else had locked the file, which is locked now until it is closed."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # a byte that is not there, for the others must be able to read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        """Whether nobody else had locked the file, which is locked now until it is closed."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _remove_left_overs(folder: Path) -> None:
    """Remove files of :func:`written_atomically` that nobody writes any more."""
    for inner in (folder, folder / "models", folder / "samples"):
        for path in inner.iterdir() if inner.is_dir() else ():
            if _PART.fullmatch(path.name):
                with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
                    if _lock(file.fileno()):
                        path.unlink()
