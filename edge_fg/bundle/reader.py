"""Reading a bundle that came from anywhere."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_fg.bundle.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    Manifest,
    Precision,
    is_file_name,
    parse_manifest,
)
from edge_fg.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    UnsafeBundleError,
)
from edge_fg.labels import Labels, parse_labels

if TYPE_CHECKING:
    import zipfile

_MAX_MEMBERS = 256


class _Store(Protocol):
    """Where the files of a bundle lie."""

    def names(self) -> list[str]:
        """Return the names of all files."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Return up to `limit` bytes of a file."""
        ...


class Bundle:
    """An opened bundle: a checked manifest and files that are verified as they are read.

    Parameters
    ----------
    path
        A bundle directory or .zip.

    Raises
    ------
    BundleError
        One of its subclasses; see `edge_fg.errors`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._store = _open_store(self.path)
        data = self._store.read(MANIFEST_NAME, MAX_MANIFEST_BYTES + 1)
        self.manifest: Manifest = parse_manifest(data, where=str(self.path))

    def read(self, name: str) -> bytes:
        """Return the content of a file that the manifest lists, after checking size and hash.

        What is returned is what was hashed, so nothing can change in between.

        Raises
        ------
        BundleIntegrityError
            The file is not listed, missing, or not the one that the manifest describes.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleIntegrityError(f"{self.path} lists no file `{name}`")
        data = self._store.read(name, entry.bytes + 1)
        if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleIntegrityError(
                f"{self.path}: `{name}` is not the file that was written (hash or size differ): "
                "copy the bundle again or rebuild it"
            )
        return data

    def verify(self) -> None:
        """Check every file of the bundle.

        Raises
        ------
        BundleError
            A file is missing, altered or malformed, or one is there that the manifest lacks.
        """
        for name in self.manifest.files:
            self.read(name)
        extra = set(self._store.names()) - set(self.manifest.files) - {MANIFEST_NAME}
        if extra:
            raise BundleIntegrityError(f"{self.path} holds files not in its manifest: {min(extra)}")
        self.labels()

    def labels(self) -> Labels:
        """Return the labels.

        Raises
        ------
        BundleFormatError
            Their number is not the one that the manifest gives.
        LabelsError
            The file is malformed.
        """
        entry = self.manifest.labels
        labels = parse_labels(self.read(entry.file), where=f"{self.path}: {entry.file}")
        if len(labels) != entry.count:
            raise BundleFormatError(
                f"{self.path}: {entry.file} holds {len(labels)} labels, not {entry.count}"
            )
        return labels

    def graph(self, precision: Precision) -> bytes:
        """Return the ONNX graph of a variant.

        Raises
        ------
        BundleError
            The bundle has no such variant; the message names those that it has.
        """
        variant = self.manifest.variants.get(precision)
        if variant is None:
            have = ", ".join(self.manifest.variants)
            raise BundleError(
                f"{self.path} has no {precision} variant (it has {have}): "
                f"rebuild it with --precision {precision}"
            )
        return self.read(variant.file)


def _open_store(path: Path) -> _Store:
    if path.is_dir():
        return _Folder(path)
    if not path.exists():
        raise BundleError(f"there is no bundle at {path}")
    if path.is_file():
        import zipfile

        if zipfile.is_zipfile(path):
            return _Zip(path)
    raise BundleFormatError(f"{path} is not a bundle: neither a folder nor a zip file")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        return sorted(entry.name for entry in self._path.iterdir())

    def read(self, name: str, limit: int) -> bytes:
        path = self._path / name
        try:
            # O_NOFOLLOW: a link could show a file from outside. O_NONBLOCK: a FIFO would hang us.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafeBundleError(f"{path} is a link: a bundle holds plain files") from error
            if name == MANIFEST_NAME and error.errno == errno.ENOENT:
                raise BundleFormatError(
                    f"{self._path} is not a bundle: it has no {MANIFEST_NAME}"
                ) from error
            raise BundleIntegrityError(f"can't read {path}: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnsafeBundleError(f"{path} is not a plain file")
            return file.read(limit)


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise UnsafeBundleError(f"{path} has more than {_MAX_MEMBERS} files: refused")
            for member in members:
                self._check(member)
            if len({member.filename for member in members}) != len(members):
                raise UnsafeBundleError(f"{path} holds two files of one name: refused")
            self._names = [member.filename for member in members]

    def _check(self, member: zipfile.ZipInfo) -> None:
        if not is_file_name(member.filename):
            raise UnsafeBundleError(f"{self._path}: refused the file name {member.filename!r}")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UnsafeBundleError(f"{self._path}: `{member.filename}` is not a plain file")
        if member.flag_bits & 1:
            raise UnsafeBundleError(f"{self._path}: `{member.filename}` is encrypted")

    def names(self) -> list[str]:
        return sorted(self._names)

    def read(self, name: str, limit: int) -> bytes:
        if name not in self._names:
            if name == MANIFEST_NAME:
                raise BundleFormatError(f"{self._path} is not a bundle: it has no {MANIFEST_NAME}")
            raise BundleIntegrityError(f"{self._path} holds no `{name}`")
        # Reading at most `limit` bytes is what makes a zip bomb harmless.
        with self._opened() as archive, archive.open(name) as file:
            return file.read(limit)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        import zipfile
        import zlib

        try:
            with zipfile.ZipFile(self._path) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise BundleIntegrityError(f"{self._path} is damaged: {error}") from error
