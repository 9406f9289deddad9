"""MJPEG over HTTP: logins, redirections, and servers that mean no good."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import SourceError
from edge_fg.sources import StateChange, open_source
from edge_fg.sources.live.http_auth import Credentials, answer, parse_challenges
from support.servers import camera, mjpeg
from support.servers import numbered_images as images
from support.waiting import HANG, unchanged


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts an MJPEG server with the attributes given."""
    made: list[Any] = []

    def start(**attributes: Any) -> Any:
        made.append(mjpeg.make(camera, images, **attributes))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def say() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers every request with the same bytes, and goes."""
    open_: list[tuple[socket.socket, threading.Thread]] = []

    def start(*said: bytes, pause: float = 0.0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                    with client:
                        client.recv(65536)
                        for piece in said:
                            client.sendall(piece)
                            time.sleep(pause)
                except OSError:
                    if listener.fileno() < 0:
                        return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        open_.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x"

    yield start
    for listener, thread in open_:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        assert not thread.is_alive()


def numbers(url: str, count: int = 4, **options: Any) -> list[int]:
    with open_source(url, **{"timeout": 20, "reconnect": 0, "buffer": 16, **options}) as source:
        return [images.shown(next(source).image) for _ in range(count)]


# ---------------------------------------------------------------- what cameras write


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"with_length": False},
        {"stated_boundary": '"frame"'},
        {"stated_boundary": "--frame"},
        {"stated_boundary": "another"},
        {"boundary": "\r\n\r\n--frame"},
        {"content_type": "multipart/x-mixed-replace"},
        {"content_type": "video/x-motion-jpeg", "boundary": "", "with_length": False},
    ],
)
def test_boundaries_as_cameras_write_them(
    serve: Callable[..., Any], attributes: dict[str, Any]
) -> None:
    server = serve(interval=0.005, **attributes)
    assert numbers(server.url) == [1, 2, 3, 4]


def test_no_opencv_is_needed(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    server = serve(interval=0.005)
    assert numbers(server.url) == [1, 2, 3, 4]


def test_chunked_answers(say: Callable[..., str]) -> None:
    data = b"".join(b"--b\r\n\r\n" + images.jpeg(images.numbered(n)) + b"\r\n" for n in range(1, 5))
    chunks = [b"%x\r\n%s\r\n" % (len(p), p) for p in (data[:77], data[77:999], data[999:])]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n"
    url = say(head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    assert numbers(url) == [1, 2, 3, 4]


# ---------------------------------------------------------------- logins


def test_the_example_of_rfc_7616() -> None:
    common = 'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    common += 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    realm = 'Digest realm="http-auth@example.org", qop="auth, auth-int"'
    both = [f"{realm}, algorithm={name}, {common}" for name in ("SHA-256", "MD5")]
    user = Credentials("Mufasa", "Circle of Life")
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    for offered, response in (
        (both, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        (both[1:], "8ca523f5e9506fed4657c9700eebdbec"),
        # Both in one header, as RFC 7235 allows.
        ([", ".join(both)], "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ):
        said = answer(parse_challenges(offered), user, "/dir/index.html", nonce_of_client=cnonce)
        assert f'response="{response}"' in said
        assert "Circle" not in said


def test_the_example_of_rfc_7617() -> None:
    challenges = parse_challenges(['Basic realm="WallyWorld"'])
    said = answer(challenges, Credentials("Aladdin", "open sesame"), "/")
    assert said == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@given(st.text(max_size=80))
def test_any_challenge_is_survived(text: str) -> None:
    for header in (text, f"Digest {text}", f'Digest realm="{text}", nonce="x"'):
        said = answer(parse_challenges([header]), Credentials("u", "p"), "/")
        assert said is None or said.split(" ")[0] in ("Digest", "Basic")


def basic(head: str) -> tuple[int, list[str]] | None:
    wanted = base64.b64encode(b"admin:p@ss word").decode()
    good = f"Authorization: Basic {wanted}" in head
    return None if good else (401, ['WWW-Authenticate: Basic realm="cam"'])


def digest(head: str) -> tuple[int, list[str]] | None:
    said = dict(re.findall(r'(\w+)="([^"]*)"', head.partition("Authorization: Digest")[2]))
    refusal = 401, ['WWW-Authenticate: Digest realm="cam", nonce="abc", qop="auth"']
    if not said:
        return refusal

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    secret, asked = md5("admin:cam:p@ss word"), md5(f"GET:{said['uri']}")
    expected = md5(f"{secret}:abc:00000001:{said['cnonce']}:auth:{asked}")
    return None if said["response"] == expected else refusal


@pytest.mark.parametrize("check", [basic, digest])
def test_logins(serve: Callable[..., Any], check: Callable[[str], Any]) -> None:
    server = serve(interval=0.005, check=check)
    host = server.url.removeprefix("http://")
    assert numbers(f"http://admin:p%40ss%20word@{host}?x=1", 2) == [1, 2]
    assert "Authorization" not in server.requests[0], "the password went out unasked"
    for login in ("", "admin:wrong@", "other:p%40ss%20word@"):
        with pytest.raises(SourceError, match="check user and password") as caught:
            open_source(f"http://{login}{host}", timeout=2)
        assert "wrong" not in str(caught.value)


# ---------------------------------------------------------------- redirections


def moved(to: Callable[[], str]) -> Callable[[str], Any]:
    return lambda head: None if "/there" in head else (302, [f"Location: {to()}"])


def test_a_redirection_is_followed(serve: Callable[..., Any]) -> None:
    server = serve(interval=0.005)
    server.check = moved(lambda: "/there")
    assert numbers(server.url, 2) == [1, 2]


def test_a_redirection_to_another_server_does_not_get_the_password(
    serve: Callable[..., Any],
) -> None:
    thief = serve(interval=0.005, check=basic)
    server = serve(check=moved(lambda: f"http://127.0.0.1:{thief.port}/there"))
    host = server.url.removeprefix("http://")
    with pytest.raises(SourceError, match="check user and password"):
        open_source(f"http://admin:p%40ss%20word@{host}", timeout=2)
    assert thief.requests
    assert not any("Authorization" in head for head in thief.requests)


@pytest.mark.parametrize(
    "target",
    [
        *("file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/", "//"),
        *("http://[::1/", "//[", "http://a b/", "http://x\x00y/", "http://h:99999/"),
    ],
)
def test_a_redirection_leads_to_http_or_nowhere(serve: Callable[..., Any], target: str) -> None:
    server = serve(check=lambda head: (302, [f"Location: {target}"]))
    with pytest.raises(SourceError, match="can't open"):
        open_source(server.url, timeout=2)


def test_redirections_in_a_circle_end(serve: Callable[..., Any]) -> None:
    server = serve(check=lambda head: (302, ["Location: /mjpeg"]))
    with pytest.raises(SourceError, match="redirects without end"):
        open_source(server.url, timeout=2)
    assert server.connections <= 7


# ---------------------------------------------------------------- ill will


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], "doesn't speak HTTP"),
        ([b""], "doesn't speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"], "doesn't speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"], "doesn't speak HTTP"),
        ([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"], "answers 404"),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], "answers 503"),
        ([b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n"], "gives single images"),
    ],
)
def test_answers_that_are_none(say: Callable[..., str], said: list[bytes], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(say(*said), timeout=2)


def test_an_endless_stream_of_rubbish_is_given_up(say: Callable[..., str]) -> None:
    url = say(HEAD, *[b"rubbish " * 8192] * 40)
    with open_source(url, timeout=2, reconnect=0) as source:
        with pytest.raises(SourceError, match="without an image"):
            next(source)
        assert source.counters["frames"] == 0


def test_a_header_that_drips_does_not_hold_anybody_up(say: Callable[..., str]) -> None:
    endless = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000
    url = say(*[bytes([byte]) for byte in endless], pause=0.05)
    with pytest.raises(SourceError, match="can't open"):
        open_source(url, timeout=0.5)


def test_an_image_that_drips_is_a_stall(serve: Callable[..., Any]) -> None:
    server = serve(interval=0.005)
    with open_source(server.url, timeout=1.0, backoff=(0.05, 0.1)) as source:

        def mend(change: StateChange) -> None:
            if change.state == "lost":
                server.drip = 0.0

        source.on_state(mend)
        assert images.shown(next(source).image) in server.sent
        server.drip = 0.02
        while source.counters["reconnects"] == 0:
            assert images.shown(next(source).image) in server.sent
        assert source.counters["stalls"] == 1


def test_closing_interrupts_a_read_at_once(serve: Callable[..., Any]) -> None:
    server = serve(interval=0.005)
    source = open_source(server.url, timeout=2 * HANG)
    next(source)
    server.stall()
    unchanged(lambda: len(server.sent))
    source.close()
    assert not [t for t in threading.enumerate() if t.name.endswith(source.name)]


def test_addresses_that_make_no_sense() -> None:
    for url in ("http://127.0.0.1:99999/x", "http://[::1/x", "http://a\u2488b/x"):
        with pytest.raises(SourceError):
            open_source(url, timeout=1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 404 \x1b[31mgone\x9b2J\r\n\r\n",
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: \x1b]0;x\x07 realm="\xe2\x80\xae"\r\n\r\n',
        b"HTTP/1.1 302 F\r\nLocation: http://\x1b[31m\xe2\x80\xae.local:x/\r\n\r\n",
        b"HTTP/1.1 302 F\r\nLocation: gopher\x9b://\x7f\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/\x1b[31m\xe2\x80\xae\r\n\r\nno image",
        b"\x1b[31mHTTP\x00\r\n\r\n",
    ],
)
def test_headers_are_quoted_without_control_characters(
    say: Callable[..., str], caplog: pytest.LogCaptureFixture, head: bytes
) -> None:
    caplog.set_level("DEBUG", "edge_fg")
    with pytest.raises(SourceError) as caught:  # noqa: SIM117
        with open_source(say(head), timeout=1, reconnect=0) as source:
            next(source)
    assert str(caught.value).isprintable()
    assert all(record.getMessage().isprintable() for record in caplog.records)
