"""Read a bundle, which may come from an untrusted place."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from edge_fg.bundle.graph_check import check_graph
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
from edge_fg.label_files import parse_labels
from edge_fg.labels import Labels
from edge_fg.printing import reason, shortage

if TYPE_CHECKING:
    import zipfile

_MAX_MEMBERS: Final = 256
# For labels, calibration and reports; `edge_fg.label_files` accepts half of it.
_MAX_SIDE_FILE_BYTES: Final = 64 << 20
# Weights barely shrink and text shrinks ten- to fiftyfold; zeros shrink a thousandfold.
_MAX_PACKED_RATIO: Final = 200
_PACKED_ALLOWANCE: Final = 1 << 20
_STORED_OR_DEFLATED: Final = (0, 8)
_MAX_ZIP_LIST_BYTES: Final = 1 << 18  # a thousand for each file
# Protobuf's limit, and with it ONNX's.
_MAX_GRAPH_BYTES: Final = (1 << 31) - 1


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
        for name, entry in self.manifest.files.items():
            if name not in self.manifest.graphs and entry.bytes > _MAX_SIDE_FILE_BYTES:
                raise UnsafeBundleError(
                    f"{self.path}: `{name}` is no model and has {entry.bytes} bytes, more than "
                    f"{_MAX_SIDE_FILE_BYTES >> 20} MB: refused"
                )

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    def read(self, name: str) -> bytes:
        """Return the content of a file that the manifest lists, after checking size and hash.

        The bytes returned are those that were hashed, so nothing can change in between.

        Raises
        ------
        BundleIntegrityError
            The file is not listed, missing, or not the one that the manifest describes.
        """
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleIntegrityError(f"{self.path} lists no file `{name}`")
        # The size first, so that the manifest can't make us read a huge file.
        whole = self._store.size(name) == entry.bytes
        if whole and entry.bytes > _MAX_GRAPH_BYTES:
            raise UnsafeBundleError(f"{self.path}: `{name}` is larger than 2 GB: refused")
        data = self._store.read(name, entry.bytes + 1) if whole else b""
        if not whole or hashlib.sha256(data).hexdigest() != entry.sha256:
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
            data = self.read(name)
            if name in self.manifest.graphs:
                check_graph(data, where=f"{self.path}: `{name}`")
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
        """Return the ONNX graph of a variant, after checking that a runtime may see it.

        Raises
        ------
        UnsafeBundleError
            It keeps weights outside itself, or would crash a runtime or keep it busy forever.
        BundleFormatError
            It is damaged or not ONNX.
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
        data = self.read(variant.file)
        check_graph(data, where=f"{self.path}: `{variant.file}`")
        return data


def _open_store(path: Path) -> _Folder | _Zip:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _Folder(path)
        if stat.S_ISREG(mode):
            import zipfile

            with path.open("rb") as file:  # is_zipfile alone hides why it can't be opened
                zipped = zipfile.is_zipfile(file)
            if zipped:
                return _Zip(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"there is no bundle at {path}") from error
    # ValueError: a null character in the path.
    except (OSError, ValueError) as error:
        raise BundleError(f"can't read a bundle at {path}: {reason(error)}") from error
    raise BundleFormatError(f"{path} is not a bundle: neither a folder nor a zip file")


class _Folder:
    """The files of a bundle that is a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self._path.iterdir())
        except OSError as error:
            raise BundleError(f"can't list {self._path}: {reason(error)}") from error

    def size(self, name: str) -> int:
        with self._opened(name) as file:
            return os.fstat(file.fileno()).st_size

    def read(self, name: str, limit: int) -> bytes:
        with self._opened(name) as file:
            return file.read(limit)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        path = self._path / name
        try:
            # O_NOFOLLOW: a link could lead outside. O_NONBLOCK: opening a FIFO would wait forever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise UnsafeBundleError(f"{path} is not a plain file")
            with os.fdopen(descriptor, "rb") as file:
                yield file
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafeBundleError(f"{path} is a link: a bundle holds plain files") from error
            if name == MANIFEST_NAME and error.errno == errno.ENOENT:
                raise BundleFormatError(
                    f"{self._path} is not a bundle: it has no {MANIFEST_NAME}"
                ) from error
            raise BundleIntegrityError(f"can't read {path}: {reason(error)}") from error


class _ZipReader(io.FileIO):
    """A file of which only a little is read at once while a zip's list of files is read.

    The list says itself how long it is, and each entry takes memory and time.
    """

    limit: int | None = _MAX_ZIP_LIST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self.limit is None:
            return super().read(size)
        most = self.limit + 1
        data = super().read(most if size is None or not 0 <= size < most else size)
        if len(data) == most:
            raise UnsafeBundleError(f"{self.name} has more than {_MAX_MEMBERS} files: refused")
        return data


class _Zip:
    """The files of a bundle that is a zip."""

    def __init__(self, path: Path) -> None:
        self._path = path
        packed = path.stat().st_size
        with self._opened() as archive:
            members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise UnsafeBundleError(f"{path} has more than {_MAX_MEMBERS} files: refused")
        for member in members:
            self._check(member, packed)
        self._members = {member.filename: member for member in members}
        if len(self._members) != len(members):
            raise UnsafeBundleError(f"{path} holds two files of one name: refused")

    def _check(self, member: zipfile.ZipInfo, packed: int) -> None:
        if not is_file_name(member.filename):
            raise UnsafeBundleError(f"{self._path}: refused the file name {member.filename!r}")
        where = f"{self._path}: `{member.filename}`"
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise UnsafeBundleError(f"{where} is not a plain file")
        if member.flag_bits & 1:
            raise UnsafeBundleError(f"{where} is encrypted")
        if member.compress_type not in _STORED_OR_DEFLATED:
            raise UnsafeBundleError(
                f"{where} is packed with method {member.compress_type}: pack it with deflate"
            )
        if member.compress_size > packed:
            raise BundleIntegrityError(f"{where} is cut short: copy the bundle again")
        # zipfile unpacks no more than the size in the zip's header, so a limit on that size limits
        # the memory. The size in the manifest would not.
        if member.file_size > _MAX_PACKED_RATIO * member.compress_size + _PACKED_ALLOWANCE:
            raise UnsafeBundleError(
                f"{where} would unpack from {member.compress_size} to {member.file_size} bytes: "
                "refused"
            )

    def names(self) -> list[str]:
        return sorted(self._members)

    def size(self, name: str) -> int:
        return self._member(name).file_size

    def read(self, name: str, limit: int) -> bytes:
        member = self._member(name)
        with self._opened() as archive, archive.open(member) as file:
            return file.read(limit)

    def _member(self, name: str) -> zipfile.ZipInfo:
        member = self._members.get(name)
        if member is None:
            if name == MANIFEST_NAME:
                raise BundleFormatError(f"{self._path} is not a bundle: it has no {MANIFEST_NAME}")
            raise BundleIntegrityError(f"{self._path} holds no `{name}`")
        return member

    @contextlib.contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        import struct
        import zipfile
        import zlib

        # For damaged archives zipfile also raises ValueError (names that are not UTF-8, seeks
        # before the start), RuntimeError (encryption, unsupported features) and OverflowError
        # (offsets beyond 64 bits).
        damage = (zipfile.BadZipFile, zlib.error, struct.error, EOFError)
        try:
            with _ZipReader(self._path) as file, zipfile.ZipFile(file) as archive:
                file.limit = None
                yield archive
        except OSError as error:
            lacking = shortage(error) or f"{reason(error)}; if it is damaged, copy it again"
            raise BundleIntegrityError(f"can't read {self._path}: {lacking}") from error
        except (*damage, ValueError, RuntimeError, OverflowError) as error:
            raise BundleIntegrityError(
                f"{self._path} is damaged, copy it again: {reason(error)}"
            ) from error
