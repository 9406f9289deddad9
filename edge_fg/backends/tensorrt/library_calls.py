"""Failed calls of TensorRT as errors: it returns False or None, and tells its log why."""

from __future__ import annotations

import re

from edge_fg.backends.tensorrt.library import Library, MessageLog, message_log, title
from edge_fg.errors import BackendError, DeviceMemoryError

# Not every word of memory: an illegal access is another failure.
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|allocat|bad_alloc|not enough.*memory", re.IGNORECASE)


class LibraryCalls:
    """Says why calls of one of the libraries failed.

    Parameters
    ----------
    library
        Which one.
    """

    def __init__(self, library: Library) -> None:
        self.log: MessageLog = message_log(library)
        self._title = title(library)

    def begin(self) -> None:
        """Forget the errors of earlier calls in this thread, before one that may fail."""
        self.log.forget_error()

    def failure(self, action: str, said: str | None = None) -> BackendError:
        """Return the error to raise where a call failed.

        Parameters
        ----------
        action
            What was tried, to be read after "can't".
        said
            Why; None for the last error in the log since `begin`.
        """
        why = self.log.last_error() if said is None else said
        if _OUT_OF_MEMORY.search(why):
            return DeviceMemoryError(
                f"{self._title} can't {action}, GPU memory ran out ({why}): choose a smaller "
                "max_batch, fewer contexts or the int8-fp16 variant, or close what else uses the "
                "GPU"
            )
        return BackendError(f"{self._title} can't {action}: {why or 'it gives no reason'}")
