"""How much space a disk still has."""

from __future__ import annotations

import os
from pathlib import Path

from edge_fg.errors import OutputError
from edge_fg.files import output_errors


class SpaceGuard:
    """Refuses to write to a disk that is nearly full, until there is clearly more space again.

    The space that is left lets open files be finished and the machine go on working.

    Parameters
    ----------
    folder
        Any folder on the disk.
    reserve_bytes
        Left free. Writing goes on once there is half as much again.
    """

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve = reserve_bytes
        self._refusing = False

    def check(self, what: Path) -> None:
        """Return if there is enough space.

        Raises
        ------
        OutputError
            There isn't; the message names the file `what`.
        """
        with output_errors(what):
            found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        needed = self._reserve * 3 // 2 if self._refusing else self._reserve
        self._refusing = free < needed
        if self._refusing:
            raise OutputError(
                f"can't write {what}: the disk is nearly full ({self._reserve >> 20} MB are kept "
                "free); recording goes on when there is space"
            )
