"""Files that grow by whole lines, also after a crash."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import time
from pathlib import Path

from edge_fg.errors import OutputError
from edge_fg.files import output_errors, write_whole

_LOGGER = logging.getLogger("edge_fg")
_CHUNK_BYTES = 1 << 16
_LONGEST_LINE = 1 << 20
_PRIVATE = 0o666  # what the user's umask leaves of it


class LineFile:
    """Appends lines to a file; opened by `open`, and again after `close`.

    Each line is one write, so a killed process leaves whole lines. A line that a full disk or a
    power cut left unfinished is cut off: at once, or when the file is opened again. If the file was
    renamed or removed (as logrotate does), a new one is made. To a pipe or a device none of this
    applies.

    An existing file is added to only if its first line begins with `prefix`, or is `header`, which
    also becomes the first line of a new file. Every `sync_seconds` the lines are forced onto the
    disk (fsync); a power cut loses those since.
    """

    def __init__(
        self,
        path: Path,
        *,
        prefix: str = "",
        header: str | None = None,
        sync_seconds: float = 5.0,
    ) -> None:
        self.path = path
        #: The last line that was in the file when it was opened; None in a new one.
        self.last_line: str | None = None
        self._prefix = (header or prefix).encode()
        self._header = header
        self._sync_seconds = sync_seconds
        self._synced = 0.0
        self._descriptor: int | None = None
        self._regular = False

    def open(self) -> None:
        """Open the file, or make it.

        An `OutputError` says that it can't be written to, that another program is writing to it, or
        that it holds something else.
        """
        self.close()
        with output_errors(self.path):
            try:
                self._regular = stat.S_ISREG(self.path.stat().st_mode)
            except FileNotFoundError:
                self._regular = True
            if not self._regular:
                # Without O_NONBLOCK, opening a pipe would wait until it has a reader.
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.set_blocking(self._descriptor, True)
                return
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, _PRIVATE)
            try:
                self._lock(self._descriptor)
                self._repair(self._descriptor)
                if self._header is not None and not os.fstat(self._descriptor).st_size:
                    self._append(self._header)
            except BaseException:
                self._drop()
                raise

    def write(self, line: str) -> None:
        """Append a line, given without its end.

        After an `OutputError` (the disk is full, for example) the file ends with a whole line, and
        the next line may be tried.
        """
        with output_errors(self.path):
            self._follow_renaming()
            if self._descriptor is None:
                self.open()
            self._append(line)
            now = time.monotonic()
            if self._regular and self._descriptor is not None and now >= self._synced:
                os.fsync(self._descriptor)
                self._synced = now + self._sync_seconds

    def close(self) -> None:
        """Force what was written onto the disk and close the file; may be called again.

        An `OutputError` says that not all of it could be written.
        """
        if self._descriptor is None:
            return
        with output_errors(self.path):
            try:
                if self._regular:
                    os.fsync(self._descriptor)
            finally:
                self._drop()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"can't write {self.path}: another program is writing to it"
            ) from error
        except OSError as error:  # not every network file system can lock
            _LOGGER.info("%s can't be locked: %s", self.path, error)

    def _repair(self, descriptor: int) -> None:
        """Check that lines may be added to the file, and cut off an unfinished line."""
        size = os.fstat(descriptor).st_size
        whole = _last_line_end(descriptor, size)
        first = os.pread(descriptor, _LONGEST_LINE, 0).partition(b"\n")[0]
        if size - whole > _LONGEST_LINE or not self._is_ours(first, whole > 0):
            raise OutputError(
                f"{self.path} holds something else, and nothing is added to it: name another file"
            )
        if torn := size - whole:
            _LOGGER.warning(
                "%s ended in the middle of a line: %d bytes were cut off", self.path, torn
            )
            os.ftruncate(descriptor, whole)
        start = max(0, whole - _LONGEST_LINE)
        lines = os.pread(descriptor, whole - start, start).splitlines()
        self.last_line = lines[-1].decode(errors="replace") if lines else None

    def _is_ours(self, first: bytes, whole: bool) -> bool:
        if whole:
            return first == self._prefix if self._header else first.startswith(self._prefix)
        # Nothing, zeros after a power cut, or the start of a line that we write.
        torn = first.strip(b"\0")
        return self._prefix.startswith(torn) or torn.startswith(self._prefix)

    def _append(self, line: str) -> None:
        assert self._descriptor is not None
        data = line.encode(errors="backslashreplace") + b"\n"
        try:
            write_whole(self._descriptor, data)
        except OSError:
            if not self._regular:
                self._drop()  # a pipe whose reader has gone is opened again
            raise

    def _follow_renaming(self) -> None:
        if self._descriptor is None or not self._regular:
            return
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                return
        self.close()

    def _drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _last_line_end(descriptor: int, size: int) -> int:
    """Return how many bytes the whole lines take."""
    end = size
    while end:
        start = max(0, end - _CHUNK_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
