"""Text from outside that is shown: on a terminal, in a log, in a message.

Names of files, labels, nodes and cameras may hold escape sequences, line breaks and characters that
turn the direction of writing. They are kept as they are and escaped where they are shown: in
messages of errors, in records of the logger ``edge_fg``, and by the command line.
"""

from __future__ import annotations

import errno
import traceback
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

_QUOTED_CHARACTERS = 300
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HEAD_BYTES, _TAIL_BYTES = 1300, 600  # Of a long message; together below 2 kB

_NO_MEMORY = "there is not enough memory: close other programs, or use a smaller model or image"
_NO_FILES = "too many files are open (EMFILE): allow more, for example with `ulimit -n 4096`"
_NO_FILES_AT_ALL = "too many files are open on this machine (ENFILE): close other programs"
_ERRORS = {
    errno.ENOMEM: _NO_MEMORY,
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: _NO_FILES_AT_ALL,
    errno.ENOSPC: "No space left on device (ENOSPC): make room",
    errno.EDQUOT: "Disk quota exceeded (EDQUOT): make room",
}
# As the loader of libraries, C++ and Python's threads say it.
_WORDS: dict[str, str | None] = {
    "static tls": None,  # not short of memory; see `_REMEDIES`
    "cannot allocate memory": _NO_MEMORY,
    "failed to map segment": _NO_MEMORY,
    "bad_alloc": _NO_MEMORY,
    "bad allocation": _NO_MEMORY,
    "failed to allocate memory": _NO_MEMORY,
    "start new thread": _NO_MEMORY,
    "pthread_create": _NO_MEMORY,
    "too many open files in system": _NO_FILES_AT_ALL,
    "too many open files": _NO_FILES,
}
# What helps where an import fails with such words.
_OLD_NUMPY = "it was built for NumPy 1, as JetPack's packages are: run `pip install 'numpy<2'`"
_REMEDIES = {
    "_array_api": _OLD_NUMPY,
    "multiarray failed to import": _OLD_NUMPY,
    "compiled using numpy 1": _OLD_NUMPY,
    "compiled against numpy": "it was built for a newer NumPy: run `pip install --upgrade numpy`",
    "compiled against api version": "it needs a newer NumPy: run `pip install --upgrade numpy`",
    "static tls": "start the program with LD_PRELOAD set to the library that is named",
    "cannot open shared object file": "install the system's package with this library",
}


def printable(text: str) -> str:
    """Return `text` with control characters and lone surrogates escaped.

    File names and labels come from outside: their escape sequences must not reach the terminal, and
    their line breaks must not break a line.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in text
    )


def has_control(text: str) -> bool:
    """Say whether `text` holds what no name needs: control characters, line breaks, bidi marks."""
    return not text.isprintable() and any(unicodedata.category(c) in _CONTROL for c in text)


def printable_lines(text: str) -> str:
    """Return `text` with everything escaped but its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def message(text: str) -> str:
    """Return `text` escaped, and without its middle where it has more than 2 kB."""
    whole = printable(text).encode()
    if len(whole) <= _HEAD_BYTES + _TAIL_BYTES:
        return whole.decode()
    return " ... ".join(
        part.decode(errors="ignore") for part in (whole[:_HEAD_BYTES], whole[-_TAIL_BYTES:])
    )


def escape_record(record: logging.LogRecord) -> bool:
    """Escape the message and traceback of a record: a filter of `logging`, which keeps it."""
    record.msg, record.args = message(record.getMessage()), None
    if record.exc_info and record.exc_info[0] is not None:
        lines = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_text = printable_lines(lines)
    return True


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:_QUOTED_CHARACTERS] if lines else type(error).__name__


def shortage(error: BaseException | None) -> str | None:
    """Return what the machine lacks and what to do, if `error` or one behind it comes from that.

    Such an error says nothing of the file or the package that it is about.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return _NO_MEMORY
        if isinstance(error, OSError) and error.errno in _ERRORS:
            return _ERRORS[error.errno]
        if not isinstance(error, OSError):
            text = Exception.__str__(error).lower()
            lack = next((lack for words, lack in _WORDS.items() if words in text), None)
            if lack is not None:
                return lack
        error = error.__cause__ or error.__context__
    return None


def import_failure(error: BaseException | None, module: str) -> str | None:
    """Return why `module` can't be imported and what helps; None where it is not installed."""
    if error is None or str(error) == f"No module named {module!r}":
        return None
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        return None
    if (lacking := shortage(error)) is not None:
        return lacking
    said = f"it is installed but can't be imported ({first_line(error)})"
    return f"{said}: {import_remedy(error)}"


def import_remedy(error: BaseException) -> str:
    """Return what helps where a package that is installed can't be imported."""
    text = str(error).lower()
    found = next((remedy for words, remedy in _REMEDIES.items() if words in text), "reinstall it")
    return shortage(error) or found


def reason(error: BaseException) -> str:
    """Return why a call failed: what the machine lacks, the system's message or the error's."""
    return shortage(error) or str(getattr(error, "strerror", None) or first_line(error))
