"""Spoilt answers of cameras: HTTP and RTSP."""

from __future__ import annotations

import struct
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random

from edge_fg.errors import EdgeFGError
from edge_fg.sources import open_source
from fuzzing.mutations import spoil_bytes
from support.servers import numbered_images, rtsp
from support.servers.scripted import ScriptedServer

PASSWORD = "hunter2-"
HTTP_TOKENS = [
    b"\r\n",
    b"\r\n\r\n",
    b"--b\r\n",
    b"--b--",
    b"Content-Length: 5\r\n",
    b"\xff\xd8\xff",
]
HTTP_TOKENS += [
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"boundary=",
    b"\xff\xd9",
]
HTTP_TOKENS += [
    b"ffffffffffffffff\r\n",
    b"Location: //\r\n",
    b"Content-Type: ",
    b"302",
    b"401",
    b"\0",
]
RTSP_TOKENS = [
    b"\r\n",
    b"\r\n\r\n",
    b"a=fmtp:96 sprop-parameter-sets=AA==\r\n",
    b"m=video 0 RTP/AVP 96\r\n",
]
RTSP_TOKENS += [
    b"$\0\0\x20",
    b"$\1\xff\xff",
    b"Content-Length: 99999\r\n",
    b"Session: x\r\n",
    b"401",
]
LOGINS = [b'Digest realm="r", nonce="n", qop="auth", algorithm=MD5', b'Basic realm="r"', b"Digest"]


@cache
def _jpeg(number: int) -> bytes:
    return numbered_images.jpeg(numbered_images.numbered(number))


def run_http(random: Random, folder: Path) -> None:
    """A stream over HTTP gives frames, or an error without its password."""
    images = [_jpeg(number) for number in range(3)]
    sized = [b"Content-Length: %d\r\n" % len(image) for image in images]
    lengths = sized if random.random() < 0.6 else [b""] * 3
    parts = [
        b"--b\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + image + b"\r\n"
        for image, length in zip(images, lengths, strict=True)
    ]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n"
    body = b"".join(parts)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    login = b"WWW-Authenticate: " + random.choice(LOGINS)
    before = [
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 No\r\n" + login + b"\r\nContent-Length: 0\r\n\r\n",
    ]
    last = [head + b"\r\n" + body, head + chunked, b"HTTP/1.0 200 OK\r\n\r\n" + body]
    script = [*random.choices(before, k=random.randrange(3)), random.choice(last)]
    _watch(random, "http", script, HTTP_TOKENS)


def run_rtsp(random: Random, folder: Path) -> None:
    """A stream over RTSP gives frames, or an error without its password."""
    codec = random.choice(["jpeg", "h264"])
    stream = rtsp.Rtp() if codec == "jpeg" else rtsp.RtpH264()
    packets = [one for number in range(6) for one in stream.packets(_jpeg(number), 0.1)]
    framed = b"".join(struct.pack(">cBH", b"$", 0, len(one)) + one for one in packets)
    body = rtsp.sdp(10, codec).encode()
    heads = [
        b"Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n",
        b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(body),
        b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1;timeout=60\r\n",
        b"Session: 1\r\nRange: npt=0.000-\r\n",
    ]
    bodies = [b"", body, b"", framed]
    script = [
        b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n" % (number + 1) + heads[number] + b"\r\n" + bodies[number]
        for number in range(4)
    ]
    _watch(random, "rtsp", script, RTSP_TOKENS)


def _watch(random: Random, scheme: str, script: list[bytes], tokens: list[bytes]) -> None:
    """Read a few frames of a server that spoils one or two of its answers, twice at most."""
    for at in random.sample(range(len(script)), random.randint(1, min(2, len(script)))):
        script[at] = spoil_bytes(random, script[at], tokens)
    tries = random.randrange(2)
    with closing(ScriptedServer(script * (tries + 1), http=scheme == "http")) as server:
        url = f"{scheme}://user:{PASSWORD}@127.0.0.1:{server.port}/live"
        try:
            with open_source(url, timeout=1.0, reconnect=tries, backoff=(0.01, 0.01)) as source:
                for count, frame in enumerate(source):
                    assert frame.image.ndim == 3
                    if count >= 1:
                        break
        except EdgeFGError as error:
            assert PASSWORD not in str(error)
            raise
