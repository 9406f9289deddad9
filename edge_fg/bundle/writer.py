"""Write a bundle, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from edge_fg.bundle.graph_check import check_graph
from edge_fg.bundle.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    format_manifest,
    parse_manifest,
)
from edge_fg.bundle.reader import Bundle
from edge_fg.errors import BundleError, OutputError
from edge_fg.files import (
    abandoned,
    lock,
    opened_atomically,
    output_errors,
    swap_in,
    sync_folder,
    write_atomically,
)

_ASIDE = "old"  # where an older bundle lies while the new one takes its place


def check_output(output: Path, *, overwrite: bool = True) -> None:
    """Check, before long work, that a bundle can be written to `output`.

    An `OutputError` says that the folder is missing or can't be written to, that what is there is
    not a bundle, or that it is one and must not be replaced (`overwrite`).
    """
    parent = output.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"can't write {output}: there is no folder {parent}")
    with output_errors(output), tempfile.TemporaryFile(dir=parent):
        pass
    if output.is_symlink() or output.exists():
        _check_replaceable(output, overwrite)


def write_bundle(
    output: Path,
    files: dict[str, bytes],
    make_manifest: Callable[[dict[str, FileEntry]], Manifest],
    *,
    overwrite: bool = True,
) -> Manifest:
    """Write a bundle directory, or a .zip if `output` ends so.

    With `overwrite` an older bundle of that name is replaced, once the new one is complete. `files`
    holds the content of every file but the manifest, by name; `make_manifest` gets size and hash of
    each.

    After an error nothing was written, and `output` is as it was: an `OutputError`; a
    `BundleFormatError` of a manifest that breaks the schema, or of a damaged graph; or an
    `UnsafeBundleError` of a graph that `Bundle.graph` refuses.
    """
    check_output(output, overwrite=overwrite)
    entries = {
        name: FileEntry(hashlib.sha256(data).hexdigest(), len(data))
        for name, data in sorted(files.items())
    }
    manifest = make_manifest(entries)
    formatted = format_manifest(manifest)
    # The schema's constraints are checked only when a manifest is read: so read it.
    parse_manifest(formatted, where=str(output))
    for name in sorted(manifest.graphs & files.keys()):
        check_graph(files[name], where=f"{output}: `{name}`")
    content = {**files, MANIFEST_NAME: formatted}
    _remove_abandoned(output)
    write = _write_zip if output.suffix == ".zip" else _write_folder
    write(output, content)
    return manifest


def _write_zip(output: Path, content: dict[str, bytes]) -> None:
    with (
        opened_atomically(output) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, data in sorted(content.items()):
            # A fixed time keeps two builds of the same thing byte-identical.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)


def _write_folder(output: Path, content: dict[str, bytes]) -> None:
    parent = output.absolute().parent
    with output_errors(output):
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=parent))
        old = temporary / _ASIDE
        used = os.open(temporary, os.O_RDONLY)
        try:
            lock(used)
            fresh = temporary / "new"
            fresh.mkdir()
            for name, data in content.items():
                write_atomically(fresh / name, data)
            swap_in(fresh, output, aside=old)
            sync_folder(parent)
        finally:
            # If the old bundle could not be put back, it stays where it can be found.
            if output.exists() or not old.exists():
                shutil.rmtree(temporary, ignore_errors=True)
            os.close(used)


def _remove_abandoned(output: Path) -> None:
    """Remove what a killed build left, unless it is an older bundle that was not put back."""
    for found in abandoned(output):
        if found.is_file():
            with contextlib.suppress(OSError):
                found.unlink()
        elif not (found / _ASIDE).exists():
            shutil.rmtree(found, ignore_errors=True)


def _check_replaceable(output: Path, overwrite: bool) -> None:
    """Raise unless `output` is an empty folder, or a bundle alone that may be replaced."""
    if output.is_dir() and not output.is_symlink() and not any(output.iterdir()):
        return
    try:
        files = set(Bundle(output).manifest.files) | {MANIFEST_NAME}
    except BundleError as error:
        raise OutputError(
            f"{output} exists and is not a bundle: move it away or choose another output"
        ) from error
    others = sorted(entry.name for entry in output.iterdir()) if output.is_dir() else []
    others = [name for name in others if name not in files]
    if others or output.is_symlink():
        what = f"holds `{others[0]}`, which is not the bundle's" if others else "is a link"
        raise OutputError(f"{output} {what}: move it away or choose another output")
    if not overwrite:
        raise OutputError(
            f"{output} is a bundle already: give --overwrite to replace it, or another output"
        )
