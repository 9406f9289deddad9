"""Video files through PyAV, which tells damaged frames and when a recording was made."""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from edge_fg.errors import ImageError, SourceError
from edge_fg.jpeg import MAX_STREAM_PIXELS, JpegDecoder, jpeg_size
from edge_fg.sources.capture_time import parse_time
from edge_fg.sources.live.connection import CorruptedData
from edge_fg.sources.uri import SourceDescription
from edge_fg.sources.video.container import Container
from edge_fg.sources.video.reader import CANNOT_OPEN, PlacedImage

# No format that opens other files, and nothing but files.
_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv,ogg,mjpeg,mpjpeg,"
    "h264,hevc,m4v,dv,ivf,nut,vc1",
}
_TIMES: Final = ("com.apple.quicktime.creationdate", "creation_time", "date")
_MOST_FAILURES = 64


class PyAVReader:
    """A video file held by PyAV; see `VideoReader`.

    A damaged frame is left out where FFmpeg marks it. Those that build on it are handed on:
    FFmpeg repairs them as far as it can, and a key frame may be seconds away. MJPEG is decoded as
    images are, except where a packet holds two fields of half the height.
    """

    def __init__(self, description: SourceDescription, container: Container) -> None:
        self._description = description
        self._ready: deque[PlacedImage | CorruptedData] = deque()
        self._skipped = 0  # frames that were given before it began again
        self._threads = 0  # as many as there are cores
        self._begin()
        stream = self._stream
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate else None
        self.size_wh = (stream.width, stream.height) if stream.width and stream.height else None
        self._tick_s = float(stream.time_base or 0)
        self._start = (stream.start_time or 0) * self._tick_s
        self.frame_count = stream.frames or self._estimated_count()
        times = (parse_time(self._file.metadata.get(key, "")) for key in _TIMES)
        self.created = next(filter(None, times), None)
        self.matrix = container.matrix
        self._decode = JpegDecoder(description.name)
        self._fill()

    def read(self) -> PlacedImage | CorruptedData | None:
        """Return the next image; see `VideoReader`."""
        self._fill()
        return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Release the file."""
        self._ready.clear()
        with contextlib.suppress(av.error.FFmpegError):
            self._file.close()

    def _begin(self) -> None:
        name, path = self._description.name, Path(str(self._description.target)).absolute()
        try:
            self._file: Any = av.open(str(path), container_options=_OPTIONS)
            self._stream = stream = self._file.streams.video[0]
        except (av.error.FFmpegError, IndexError, ValueError) as error:
            why = "it has no video" if isinstance(error, IndexError) else CANNOT_OPEN
            raise SourceError(f"can't open {name} as a video: {why}") from error
        if stream.codec_context is None:
            raise SourceError(f"can't open {name} as a video: its codec is not known")
        stream.thread_type = "FRAME"  # with several threads for a frame, no damage is marked
        self._is_jpeg = stream.codec_context.name == "mjpeg"
        if self._is_jpeg:
            self._threads = 1
        stream.codec_context.thread_count = self._threads
        stream.codec_context.options = {"max_pixels": str(MAX_STREAM_PIXELS)}
        self._packets = self._file.demux(stream)
        self._expected = 0  # frames, as many as packets
        self._given = 0
        self._failed = 0
        self._ended = False

    def _begin_again(self) -> None:
        """Come back to here with one thread: with several, an error costs other frames, too."""
        self._file.close()
        self._skipped, self._threads = self._given, 1
        self._begin()

    def _estimated_count(self) -> int | None:
        seconds = (self._file.duration or 0) / av.time_base
        # Matroska states when it ends, not how long it is.
        if "matroska" in self._file.format.name and seconds > self._start:
            seconds -= self._start
        return round(seconds * self.fps) or None if self.fps else None

    def _fill(self) -> None:
        """Decode until something is ready, or to the end."""
        while not self._ready and not self._ended:
            packet = self._next_packet()
            self._ended = packet is None
            if packet is not None and packet.size == 0:
                continue  # a recorder's mark of a dropped frame, or PyAV's of the end
            if self._is_jpeg and packet is not None and not self._is_field(packet):
                self._ready.append(self._from_jpeg(packet))
                continue
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                if self._threads != 1:
                    self._begin_again()
                    continue
                self._failed += 1
                self._ready.append(CorruptedData("a packet can't be decoded"))
            else:
                self._ready.extend(filter(None, map(self._placed, frames)))
            self._expected += packet is not None
            # Without its key frame, a decoder gives none of the frames that build on it.
            silent = self._expected - self._given - self._failed
            if self._ended and self._failed and silent > 0:
                self._ready.append(CorruptedData("frames are built on a damaged one", silent))

    def _next_packet(self) -> Any:
        """Return the next packet, also behind bytes that make no sense; None at the end."""
        for failed in range(_MOST_FAILURES):
            try:
                packet = next(self._packets, None)
            except av.error.FFmpegError:
                self._packets = self._file.demux(self._stream)
                continue
            if failed and packet is not None and packet.size:
                self._ready.append(CorruptedData("bytes that are no packet", failed))
            return packet
        return None

    def _placed(self, frame: Any) -> PlacedImage | CorruptedData | None:
        number, self._given = self._given, self._given + 1
        if number < self._skipped:
            return None
        if self.matrix is None and number == 0:
            matrix = frame.side_data.get("DISPLAYMATRIX")
            self.matrix = None if matrix is None else bytes(matrix)
        if frame.is_corrupt:
            return CorruptedData("a frame is damaged")
        try:
            image = np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
        except (av.error.FFmpegError, ValueError) as error:
            return CorruptedData(str(error))
        return image, self._position(frame, number)

    def _is_field(self, packet: Any) -> bool:
        """Whether a packet of MJPEG holds a field, of which two make a frame."""
        try:
            width, height = jpeg_size(bytes(packet))
        except ImageError:
            return False
        return self.size_wh in ((width, 2 * height), (width, 2 * height - 1))

    def _from_jpeg(self, packet: Any) -> PlacedImage | CorruptedData:
        """Decode a packet of MJPEG as images are, which notices damage that FFmpeg passes over."""
        number, self._given = self._given, self._given + 1
        try:
            return self._decode(bytes(packet)), self._position(packet, number)
        except ImageError as error:
            return CorruptedData(str(error))

    def _position(self, of: Any, number: int) -> float:
        stamp = of.dts if of.pts is None else of.pts
        if stamp is None or not self._tick_s:
            return number / (self.fps or 1)
        return max(float(stamp * self._tick_s) - self._start, 0.0)
