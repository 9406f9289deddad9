"""An RTSP camera: RTP over the same TCP connection (RFC 2326, section 10.12), JPEG (RFC 2435)."""

from __future__ import annotations

import io
import os
import re
import select
import socket
import struct
import time
from fractions import Fraction
from types import ModuleType
from typing import Any

_PACKET = 1200
_CLOCK = 90_000


def make(camera: ModuleType, images: ModuleType, **options: object):  # noqa: C901
    """A running server; see `camera.CameraServer`."""

    class RtspServer(camera.CameraServer):
        codec = "jpeg"  # or h264, which needs PyAV
        clock_behind: float | None = None  # reports its clock, so many seconds late
        lose = 0  # how many of the next images are never sent

        @property
        def url(self) -> str:
            return f"rtsp://127.0.0.1:{self.port}/live"

        def serve(self, client: socket.socket) -> None:
            rtp = Rtp() if self.codec == "jpeg" else RtpH264()
            playing = False
            while not playing:
                playing = self._answer(client, camera.read_head(client))
            count = 0
            while (data := self.next_image()) is not None:
                if self.end_after is not None and count >= self.end_after:
                    return
                count += 1
                self._drain(client)
                self._send(client, rtp, data)

        def _answer(self, client: socket.socket, head: str) -> bool:
            self.requests.append(head)
            method = head.split(" ", 1)[0]
            sequence = re.search(r"(?im)^cseq:\s*(\d+)", head)
            lines = ["RTSP/1.0 200 OK", f"CSeq: {sequence[1] if sequence else 0}"]
            body = ""
            if method == "OPTIONS":
                lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER")
            elif method == "DESCRIBE":
                body = sdp(round(1 / self.interval), self.codec)
                lines += [f"Content-Base: {self.url}/", "Content-Type: application/sdp"]
            elif method == "SETUP":
                lines += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1;timeout=60"]
            elif method == "PLAY":
                lines += ["Session: 1", "Range: npt=0.000-"]
            lines.append(f"Content-Length: {len(body)}")
            client.sendall("\r\n".join([*lines, "", body]).encode())
            return method == "PLAY"

        def _drain(self, client: socket.socket) -> None:
            """Take what the client reports; answer what it asks meanwhile."""
            while select.select([client], [], [], 0)[0]:
                data = client.recv(65536)
                if not data:
                    raise ConnectionError("the client went")
                for asked in re.findall(
                    rb"(?:GET_PARAMETER|OPTIONS|TEARDOWN) .*?\r\n\r\n", data, re.S
                ):
                    self._answer(client, asked.decode("latin-1"))

        def _send(self, client: socket.socket, rtp: RtpStream, data: bytes) -> None:
            packets = rtp.packets(data, self.interval)
            if self.lose > 0:
                self.lose -= 1
                return
            if self.codec == "h264" and self.spoil():
                # Part of each slice is missing, and what is left is mixed up; headers are sound.
                packets = [holed(p) for p in packets]
            elif self.spoil():
                # Rubbish in the payload, with its RTP header sound; and one packet is missing.
                packets = [p[:24] + os.urandom(max(len(p) - 24, 0)) for p in packets]
                packets = packets[:-1]
            if self.clock_behind is not None:
                client.sendall(rtp.report(time.time() - self.clock_behind))
            framed = b"".join(struct.pack(">cBH", b"$", 0, len(p)) + p for p in packets)
            if self.cut:
                self.cut = False
                client.sendall(framed[: len(framed) // 2])
                self.kill()
                return
            client.sendall(framed)

    server = RtspServer(images)
    for name, value in options.items():
        setattr(server, name, value)
    return server


def holed(packet: bytes) -> bytes:
    """A packet that lost a third of what stands behind its headers."""
    start = 28 + (len(packet) - 28) // 3
    return packet[:start] + packet[start + (len(packet) - 28) // 3 :]


def sdp(fps: int, codec: str) -> str:
    lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0"]
    lines += ["a=control:*", f"m=video 0 RTP/AVP {26 if codec == 'jpeg' else 96}"]
    if codec == "h264":
        lines += ["a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=1"]
    lines += ["a=control:trackID=0", f"a=framerate:{fps}"]
    return "\r\n".join(lines) + "\r\n"


class RtpStream:
    """What the packets of a stream have in common."""

    def __init__(self) -> None:
        self._sequence = 1
        self._time = 0

    def report(self, now: float) -> bytes:
        """A sender report of what the camera's clock says (RFC 3550, section 6.4.1)."""
        seconds, part = divmod(now + 2_208_988_800, 1)
        report = (0x80, 200, 6, 0x5EED, int(seconds), int(part * 2**32), self._time, 0, 0)
        return struct.pack(">cBH", b"$", 1, 28) + struct.pack(">BBHIIIIII", *report)


class RtpH264(RtpStream):
    """RTP packets of H.264 (RFC 6184): single units and fragments; a key frame every 15."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder: Any = None

    def packets(self, data: bytes, interval: float) -> list[bytes]:
        self._time = (self._time + round(interval * _CLOCK)) & 0xFFFFFFFF
        units = [unit for packet in self._encode(data) for unit in _units(bytes(packet))]
        found = []
        for index, unit in enumerate(units):
            pieces = [unit]
            if len(unit) > _PACKET:
                kind, head = unit[0] & 31, unit[0] & 0xE0 | 28
                cuts = [unit[i : i + _PACKET] for i in range(1, len(unit), _PACKET)]
                pieces = [
                    bytes([head, kind | (n == 0) << 7 | (n == len(cuts) - 1) << 6]) + cut
                    for n, cut in enumerate(cuts)
                ]
            for place, piece in enumerate(pieces):
                last = index == len(units) - 1 and place == len(pieces) - 1
                head = 96 | last << 7
                found.append(
                    struct.pack(">BBHII", 0x80, head, self._sequence, self._time, 0x5EED) + piece
                )
                self._sequence = (self._sequence + 1) & 0xFFFF
        return found

    def _encode(self, data: bytes) -> list[Any]:
        import av
        from PIL import Image

        frame = av.VideoFrame.from_image(Image.open(io.BytesIO(data)))
        if self._encoder is None:
            self._encoder = av.CodecContext.create("libx264", "w")
            self._encoder.width, self._encoder.height = frame.width, frame.height
            self._encoder.pix_fmt = "yuv420p"
            self._encoder.time_base = Fraction(1, 30)
            options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "15", "g": "15"}
            self._encoder.options = {**options, "x264-params": "scenecut=0:repeat-headers=1"}
        return list(self._encoder.encode(frame.reformat(format="yuv420p")))


def _units(stream: bytes) -> list[bytes]:
    """The NAL units of a stream with start codes (ITU-T H.264, annex B)."""
    return [
        unit.rstrip(b"\0") for unit in re.split(rb"\x00\x00\x00?\x01", stream) if unit.rstrip(b"\0")
    ]


class Rtp(RtpStream):
    """RTP packets of JPEG images; type 1 (4:2:0) with the tables in band."""

    def packets(self, data: bytes, interval: float) -> list[bytes]:
        width, height, tables, scan = _parts(data)
        self._time = (self._time + round(interval * _CLOCK)) & 0xFFFFFFFF
        quantisation = struct.pack(">BBH", 0, 0, len(tables)) + tables
        packets = []
        for start in range(0, len(scan), _PACKET):
            piece = scan[start : start + _PACKET]
            last = start + _PACKET >= len(scan)
            head = struct.pack(">BBHII", 0x80, 26 | last << 7, self._sequence, self._time, 0x5EED)
            jpeg = struct.pack(">II", start & 0xFFFFFF, 0)[:4]
            jpeg += struct.pack(">BBBB", 1, 255, width // 8, height // 8)
            packets.append(head + jpeg + (quantisation if start == 0 else b"") + piece)
            self._sequence = (self._sequence + 1) & 0xFFFF
        return packets


def _parts(data: bytes) -> tuple[int, int, bytes, bytes]:
    """Width, height, both quantisation tables, and the scan without EOI."""
    at, tables, width, height = 2, {}, 0, 0
    while True:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : at + 2 + length]
        if kind == 0xDB:
            while segment:
                tables[segment[0] & 15] = segment[1:65]
                segment = segment[65:]
        elif kind == 0xC0:
            height, width = struct.unpack(">HH", segment[1:5])
        elif kind == 0xDA:
            scan = data[at + 2 + length :]
            return width, height, tables[0] + tables[1], scan[: scan.rindex(b"\xff\xd9")]
        at += 2 + length
