"""MJPEG over HTTP, read by ourselves.

FFmpeg reads it too, but skips what it can't make sense of in silence, knows no digest by SHA-256,
needs OpenCV, and can't be interrupted. Here time-outs, redirections, the size of everything and
each damaged image are in our hands, and a read ends at once when the source is closed.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import threading
import time
from collections import deque
from datetime import datetime
from functools import partial

from edge_fg.errors import ImageError, SourceError
from edge_fg.jpeg import JpegDecoder
from edge_fg.sources.jpeg_splitter import JpegSplitter
from edge_fg.sources.live.connection import (
    CapturedImage,
    Connection,
    CorruptedData,
    EncodedImage,
    camera_time,
    wall_clock,
)
from edge_fg.sources.live.http_address import HttpAddress, locate
from edge_fg.sources.live.http_auth import answer, parse_challenges
from edge_fg.sources.live.multipart import MultipartSplitter
from edge_fg.sources.options import SourceOptions
from edge_fg.sources.uri import SourceDescription

_logger = logging.getLogger("edge_fg")

_MAX_REDIRECTIONS = 5
_READ_BYTES = 1 << 16
# Content types of an endless row of JPEGs.
STREAM_TYPES = frozenset(
    {"multipart/x-mixed-replace", "multipart/mixed", "video/x-motion-jpeg"}
    | {"video/x-jpeg", "video/mjpeg", "video/x-mjpeg"}
)


class MjpegConnection(Connection):
    """An MJPEG stream over HTTP.

    Proxies of the environment are not used: cameras stand in the local network, and a proxy would
    hold their endless answer back. The time-out is for connecting and for each read.
    """

    def __init__(self, description: SourceDescription, options: SourceOptions) -> None:
        self.content_type = ""
        self._description = description
        self._options = options
        self._name = description.name
        self._lock = threading.Lock()
        self._interrupted = False
        self._client: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._splitter: JpegSplitter | MultipartSplitter = JpegSplitter()
        self._counted = 0
        self._ready: deque[EncodedImage] = deque()
        self._decode = JpegDecoder(self._name)

    def open(self) -> None:
        """Connect; `content_type` tells whether it is MJPEG."""
        place, credentials = locate(str(self._description.target), self._name)
        authorisation: str | None = None
        moves = 0
        while True:
            response = self._request(place, authorisation)
            if response.status in (301, 302, 303, 307, 308):
                moves += 1
                if moves > _MAX_REDIRECTIONS:
                    raise SourceError(f"can't open {self._name}: it redirects without end")
                location = response.headers.get("Location", "")
                place, credentials = place.redirected(location, self._name, credentials)
                authorisation = None
            elif response.status == 401 and credentials is not None and authorisation is None:
                offers = response.headers.get_all("WWW-Authenticate", [])
                authorisation = answer(parse_challenges(offers), credentials, place.target)
                if authorisation is None:
                    raise SourceError(f"can't open {self._name}: it asks for an unknown login")
            else:
                break
        if response.status in (401, 403):
            raise SourceError(
                f"can't open {self._name}: the camera refuses it ({response.status}), "
                "check user and password"
            )
        if response.status != 200:
            raise SourceError(f"can't open {self._name}: the camera answers {response.status}")
        self.content_type = response.headers.get_content_type()
        boundary = response.headers.get_boundary()
        if boundary is not None and response.headers.get_content_maintype() == "multipart":
            self._splitter = MultipartSplitter(boundary)
        self._response = response

    def read(self) -> EncodedImage | CorruptedData | None:
        """Return the next image."""
        response = self._response
        assert response is not None
        while True:
            if self._splitter.corrupted > self._counted:
                count = self._splitter.corrupted - self._counted
                self._counted = self._splitter.corrupted
                return CorruptedData("bytes that are no JPEG", count)
            if self._ready:
                return self._ready.popleft()
            data = self._receive(response)
            images = self._splitter.feed(data) if data else self._splitter.finish()
            if not data and not images:
                return None
            now, wall = time.monotonic(), wall_clock()
            self._ready.extend(
                EncodedImage(partial(self._decoded, image, now, wall)) for image in images
            )

    def interrupt(self) -> None:
        """Make an `open` or `read` that another thread is in return soon."""
        with self._lock:
            self._interrupted = True
            sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                # Not its own method: that of TLS takes the state away from the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the connection."""
        for thing in (self._response, self._client):
            if thing is not None:
                with contextlib.suppress(OSError):
                    thing.close()
        with self._lock:
            self._response = self._client = self._socket = None
        self._ready.clear()

    def _decoded(
        self, data: bytes, captured: float, wall: datetime
    ) -> CapturedImage | CorruptedData:
        stamp_s = getattr(data, "stamp_s", None)
        taken = wall if stamp_s is None else camera_time(stamp_s, wall)
        try:
            return CapturedImage(self._decode(data), captured, taken)
        except ImageError as error:
            return CorruptedData(str(error))

    def _receive(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read1(_READ_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(self._in_words(error)) from error

    def _request(self, place: HttpAddress, authorisation: str | None) -> http.client.HTTPResponse:
        self.close()
        secure = place.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        client = self._client = kind(place.host, place.port, timeout=self._options.timeout)
        headers = {"User-Agent": "edge-fg", "Accept": "multipart/x-mixed-replace, */*"}
        if authorisation is not None:
            headers["Authorization"] = authorisation
        try:
            client.connect()
            with self._lock:
                # Kept, for http.client drops it once it has made the response.
                self._socket = client.sock
                if self._interrupted:
                    raise SourceError("it was closed")
            client.request("GET", place.target, headers=headers)
            return client.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(f"can't open {self._name}: {self._in_words(error)}") from error

    def _in_words(self, error: Exception) -> str:
        # An error's own text may repeat the address with its password.
        if isinstance(error, TimeoutError):
            return f"no answer for {self._options.timeout:g} s"
        if isinstance(error, http.client.IncompleteRead):
            return "it broke off"
        if isinstance(error, http.client.HTTPException):
            return f"it doesn't speak HTTP ({type(error).__name__})"
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({error.verify_message}): "
                "name a file that holds it in the environment variable SSL_CERT_FILE"
            )
        reason = getattr(error, "strerror", None)
        return str(reason or type(error).__name__)
