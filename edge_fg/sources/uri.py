"""What people type to name a source of frames, and how it is shown without its secrets."""

from __future__ import annotations

import glob
import os
import re
import stat
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from edge_fg.errors import SourceError
from edge_fg.images import IMAGE_SUFFIXES
from edge_fg.sources.options import are_options, looks_like_options, parse_options
from edge_fg.sources.schemes import find_scheme

SourceKind = Literal[
    "image", "images", "directory", "glob", "video", "camera", "csi", "stream", "pipe", "scheme"
]

#: Suffixes (lower case) of the files that are opened as videos.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".asf", ".flv", ".3gp", ".ogv", ".mjpg", ".mjpeg", ".h264", ".h265", ".hevc"}
)

_STREAM_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
DEVICE = re.compile(r"/dev/video[0-9]{1,3}")
# What may be the name of a camera that is unplugged: udev takes its link away.
_UNPLUGGED = re.compile(r"/dev/v4l/.+|/dev/(?!shm/|fd/)[\w:+-][\w.:+/-]*")
_MAX_CHARACTERS = 1 << 14  # a longer one is none, and a glob takes the square of its length
_KNOWN = (
    "an image, a directory, a quoted glob, a video file, a camera (0, /dev/video0, "
    "/dev/v4l/by-id/...), csi://0, rtsp://, http:// or - for standard input"
)

# Parameters of camera addresses that say which image is wanted; the others may be secrets.
_HARMLESS_PARAMETERS = frozenset(
    {"action", "camera", "ch", "channel", "codec", "fps", "height", "profile", "quality"}
    | {"resolution", "size", "stream", "streamtype", "subtype", "unicast", "videocodec", "width"}
)
_SECRET = re.compile(r"(?i)user|usr|pass|pwd|token|secret|auth|key|login")
_LETTERS = f"{string.ascii_letters}_\u017f\u212a"  # the last two are an s and a k in other cases


@dataclass(frozen=True)
class SourceDescription:
    """What a source is, before it is opened."""

    kind: SourceKind  # How it is opened
    name: str  # Fit to be shown: never contains credentials
    # What the opener needs: a path, a pattern, an address, or the number of a camera. May contain
    # credentials, so it is left out of the representation.
    target: str | int = field(repr=False)
    paths: tuple[Path, ...] = ()  # The images of kind ``image`` and ``images``; empty for others
    # Keywords for `SourceOptions` that stood behind the name.
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_http(self) -> bool:
        """Whether it is a stream over HTTP."""
        return self.kind == "stream" and str(self.target).lower().startswith("http")


def parse_source(source: str | int | Path | Sequence[str | Path]) -> SourceDescription:
    """Find out what `source` names. Files are looked at; nothing is opened.

    Parameters
    ----------
    source
        A camera's number (``0``), its device or a link to it, such as ``/dev/video0`` or
        ``/dev/v4l/by-id/...`` (also behind ``v4l2://``), ``csi://0``,
        ``rtsp://...``, ``http://...``, ``file://...``, an image, a video file, a directory (of
        images and videos, with all directories in it), a glob, ``-`` for standard input, a scheme
        that an installed package brings (``fieldguide://``), or a sequence of image or video
        files. A `Path` always names a file or directory.

        Options may stand behind a string: ``/dev/video0?width=1280&height=720&fps=30``,
        ``csi://0?flip=rotate-180``, ``clip.mp4?flip=horizontal`` (unless there is a file of just
        that name). The query of a network address belongs to the camera, so there they stand
        behind a ``#``, which no server ever sees: ``rtsp://cam/live?channel=1#timeout=5``. A
        password that is not to stand in the address is named there, too; see `SourceOptions`.

    Raises
    ------
    SourceError
        It names nothing that exists, or nothing that frames can come from.
    UsageError
        An option behind the name makes no sense.
    """
    if isinstance(source, bool):
        raise SourceError(f"{source} is not a source: give {_KNOWN}")
    if isinstance(source, int):
        return _camera_number(source)
    if isinstance(source, Path):
        return _parse_path(os.fspath(source))
    if isinstance(source, str):
        return _parse_text(source.strip())
    if isinstance(source, Sequence) and all(isinstance(item, (str, Path)) for item in source):
        return _parse_images([Path(item) for item in source])
    raise SourceError(f"{type(source).__name__} is not a source: give {_KNOWN}")


def redact(uri: str) -> str:
    """Return `uri` without user names, passwords and tokens.

    Credentials are taken out of the authority (``user:password@``) and of the path and query, where
    many cameras want them; of the query only well-known harmless parameters keep their values.
    Where it can't be told which part an ``@`` belongs to, all but the scheme is hidden. Text
    without a scheme is returned as it is unless it holds something like ``name:password@host``.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return "***" if 0 <= uri.find(":") < uri.rfind("@") else uri
    scheme, rest = match.group(), uri[match.end() :]
    userinfo, _, rest = rest.rpartition("@")
    if re.search(r"[/?#]", userinfo):
        return f"{scheme}***"
    rest = rest.partition("#")[0]
    path, question, query = rest.partition("?")
    secret = _secret_in(path)
    if secret is not None:
        return f"{scheme}{path[:secret]}***"
    return scheme + path + question + "&".join(map(_redact_parameter, query.split("&")))


def _secret_in(path: str) -> int | None:
    """Return where ``user=``, ``password=`` or the like begins; the time grows with the length."""
    at = 0
    for part in path.split("=")[:-1]:
        word = part[len(part.rstrip(_LETTERS)) :]
        if found := _SECRET.search(word):
            return at + len(part) - len(word) + found.start()
        at += len(part) + 1
    return None


def _redact_parameter(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    if not parameter or (equals and name.lower() in _HARMLESS_PARAMETERS):
        return parameter
    # Without "=", the parameter itself may be the secret.
    return f"{name}=***" if equals else "***"


def is_camera(path: str) -> bool:
    """Whether a path is a device or leads to one, or may do so once a camera is plugged in."""
    if DEVICE.fullmatch(path):
        return True
    try:
        return stat.S_ISCHR(os.stat(path).st_mode)  # noqa: PTH116  Path refuses no null character
    except (OSError, ValueError):
        suffix = Path(path).suffix.lower()
        is_file = suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES
        return _UNPLUGGED.fullmatch(path) is not None and not is_file


def _parse_text(text: str) -> SourceDescription:
    if not text:
        raise SourceError(f"the source is empty: give {_KNOWN}")
    if len(text) > _MAX_CHARACTERS:
        raise SourceError(f"the name of a source has at most {_MAX_CHARACTERS} characters")
    if text == "-":
        return SourceDescription("pipe", "-", "-")
    match = _SCHEME.match(text)
    if match is None:
        return _parse_plain(text)
    scheme, rest = match.group(1).lower(), text[match.end() :]
    if scheme == "file":
        return _parse_path_with_options(_path_of_file_uri(rest), is_uri=True)
    if scheme in _STREAM_SCHEMES:
        return _parse_stream(scheme, text)
    if scheme in ("v4l2", "csi"):
        return _parse_camera_uri(scheme, rest)
    if find_scheme(scheme) is not None:
        return SourceDescription("scheme", redact(text), text)
    raise SourceError(f"{scheme}:// in {redact(text)} is not known: give {_KNOWN}")


def _parse_plain(text: str) -> SourceDescription:
    """Parse what has no scheme: a camera or a path."""
    if "\0" in text:
        raise SourceError(f"{redact(text)!r} names no source: it contains a null character")
    name, _, query = text.partition("?")
    camera = _parse_camera(name)
    if camera is not None:
        return replace(camera, options=parse_options(query, camera.name))
    # The shell leaves the "~" of a quoted glob alone.
    return _parse_path_with_options(os.path.expanduser(text), is_uri=False)  # noqa: PTH111


def _parse_path_with_options(path: str, *, is_uri: bool) -> SourceDescription:
    """Parse a path, and options behind it unless they belong to its name."""
    before, mark, query = path.rpartition("?")
    if not mark or not looks_like_options(query) or os.path.lexists(path):
        return _parse_path(path)
    if is_uri and not os.path.lexists(before):
        before = unquote(before)
    return replace(_parse_path(before), options=parse_options(query, redact(before)))


def _parse_stream(scheme: str, text: str) -> SourceDescription:
    url, mark, fragment = text.rpartition("#")
    # A "#" may also stand in a password that nobody escaped.
    in_password = "@" in fragment and not re.search(r"[/?@]", url.partition("://")[2])
    if in_password or not mark or not are_options(fragment):
        url, fragment = text, ""
    host = re.split(r"[/?#]", url.partition("://")[2])[0].rpartition("@")[2]
    if not host.strip(":"):
        raise SourceError(f"{redact(url)} names no host: write {scheme}://host[:port]/path")
    name = redact(url)
    if any("\ud800" <= c <= "\udfff" for c in url):
        raise SourceError(f"{name} holds bytes that are not UTF-8: write them as %FF")
    return SourceDescription("stream", name, url, options=parse_options(fragment, name))


def _parse_camera_uri(scheme: str, rest: str) -> SourceDescription:
    place, _, query = rest.partition("?")
    camera = _parse_camera(place)
    if camera is None and place.startswith("/") and not os.path.lexists(place):
        camera = SourceDescription("camera", place, place)  # a link that comes with the camera
    if camera is None or (scheme == "csi" and camera.target == place):
        example = "csi://0 for the first one" if scheme == "csi" else "v4l2:///dev/video0"
        raise SourceError(f"{scheme}://{redact(place)} names no camera: write {example}")
    if scheme == "csi":
        camera = SourceDescription("csi", f"csi://{camera.target}", camera.target)
    return replace(camera, options=parse_options(query, camera.name))


def _parse_camera(text: str) -> SourceDescription | None:
    """Parse a number or a device's name; None for anything else."""
    if text.isascii() and text.isdigit():
        # Python refuses to convert thousands of digits, and no camera has so many.
        if len(text) > 9:
            raise SourceError(f"there is no camera {text[:9]}...: cameras are numbered from 0")
        return _camera_number(int(text))
    return SourceDescription("camera", text, text) if is_camera(text) else None


def _camera_number(number: int) -> SourceDescription:
    if not 0 <= number < 1000:
        raise SourceError(f"there is no camera {number}: cameras are numbered from 0")
    return SourceDescription("camera", f"/dev/video{number}", number)


def _path_of_file_uri(rest: str) -> str:
    if rest.startswith("localhost/"):
        rest = rest.removeprefix("localhost")
    # People write paths with a literal "%" behind file://, programs write escapes.
    if os.path.lexists(rest) or looks_like_options(rest.rpartition("?")[2]):
        return rest
    return unquote(rest)


def _parse_path(text: str) -> SourceDescription:
    if "\0" in text:
        raise SourceError(f"{redact(text)!r} is not a path: it contains a null character")
    path = Path(text)
    try:
        is_directory, is_there = path.is_dir(), path.exists()
    except OSError as error:
        raise SourceError(f"can't look at {redact(text)}: {error.strerror or error}") from error
    if is_directory:
        return SourceDescription("directory", text, text)
    if is_camera(text):
        return SourceDescription("camera", text, text)
    if not is_there:
        if glob.has_magic(text):
            return SourceDescription("glob", text, text)
        raise SourceError(f"there is no file or directory {redact(text)}: give {_KNOWN}")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return SourceDescription("image", text, text, (path,))
    if suffix in VIDEO_SUFFIXES:
        return SourceDescription("video", text, text)
    raise SourceError(
        f"{text} is neither an image nor a video by its name: "
        f"the suffix {suffix or '(none)'} is not known"
    )


def _parse_images(paths: list[Path]) -> SourceDescription:
    if not paths:
        raise SourceError("the list of images is empty")
    name = os.fspath(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return SourceDescription("images", name, name, tuple(paths))
