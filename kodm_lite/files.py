"""Writing files so that an interruption or a full disk loses nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["storing", "write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all; a crash leaves at most a file with ``.part`` in its name, used again.

    Raises:
        OSError: names the file; an older one is as it was.
    """
    temporary = path.with_name(path.name + ".part")  # same folder: replacing is atomic within a disk only
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                temporary.unlink()  # a full disk needs the room
            raise


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Make every error of the disk say which file could not be written, and that nothing is lost."""
    try:
        yield
    except OSError as error:
        reason = (
            f"cannot be written ({error.strerror or error}); what was saved before is kept; make room or choose "
            "another folder, and run the same command again"
        )
        raise OSError(error.errno, reason, str(path)) from error
