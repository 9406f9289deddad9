"""What is used in a ``with`` statement and closed at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NoReturn

from edge_fg.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self


class Closing(ABC):
    """Base of objects that hold a thread, a file, a socket or memory until they are closed.

    A subclass writes `close`; ``with`` then works. It can't be copied or pickled, and says what to
    do `instead`.
    """

    __slots__ = ()

    instead = "make one where it is needed"

    @abstractmethod
    def close(self) -> None:
        """Release what is held; may be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            f"this {type(self).__name__} can't be copied or pickled, because it holds what belongs "
            f"to this process: {self.instead}"
        )
