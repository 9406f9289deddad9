"""Passwords beside the address of a stream, and those that would break it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import EdgeFGError, SourceError, UsageError
from edge_fg.sources import SourceOptions, open_source, parse_source
from edge_fg.sources.credentials import with_password
from edge_fg.sources.live.http_address import locate

SECRET = "p#s/s?w@r:d%41 ü"


def target(text: str) -> str:
    described = parse_source(text)
    assert SECRET not in repr(described)
    return str(with_password(described, SourceOptions().merged(described.options)).target)


@pytest.fixture(params=["file", "env"])
def option(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What names the password, of both kinds."""
    if request.param == "env":
        monkeypatch.setenv("NEST_PASSWORD", SECRET)
        return "password_env=NEST_PASSWORD"
    path = tmp_path / "edge-fg@nest.service"  # systemd puts credentials into such folders
    path.mkdir()
    (path / "password").write_text(SECRET + "\n", encoding="utf-8")
    return f"password_file={path}/password"


@pytest.mark.parametrize("address", ["rtsp://admin@cam:554/live?ch=1", "https://admin:@[::1]/x"])
def test_a_password_belongs_to_the_user(address: str, option: str) -> None:
    whole, plain = urlsplit(target(f"{address}#{option}&timeout=3")), urlsplit(address)
    assert (whole.username, unquote(whole.password or "")) == ("admin", SECRET)
    assert (whole.hostname, whole.port, whole.path) == (plain.hostname, plain.port, plain.path)
    assert whole.query == plain.query


def test_a_password_in_the_query_or_path(option: str) -> None:
    url = target(f"http://cam/x?user=a&pwd={{password}}#{option}")
    assert unquote(url) == f"http://cam/x?user=a&pwd={SECRET}"
    assert urlsplit(url).hostname == "cam"
    assert "#" not in target(f"rtsp://cam/user=a_password={{password}}_channel=1.sdp#{option}")


def test_the_server_gets_it_and_nobody_else(option: str) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    asked: list[str | None] = []

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="nest"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Camera) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(SourceError) as caught:
            open_source(f"http://admin@127.0.0.1:{server.server_port}/nest#{option}")
        server.shutdown()
    wanted = "Basic " + base64.b64encode(f"admin:{SECRET}".encode()).decode()
    assert wanted in asked
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("rtsp://cam/x#password_env=NEST", UsageError, "write rtsp://USER@host"),
        ("rtsp://a:b@cam/x#password_env=NEST", UsageError, "holds a password already"),
        ("rtsp://a@cam/x#password_env=NEST&password_file=x", UsageError, "not both"),
        ("rtsp://a@cam/x#password_env=NONE_SUCH", SourceError, "variable NONE_SUCH holds no"),
        ("rtsp://a@cam/x#password_env=", SourceError, "holds no password"),
        ("rtsp://a@cam/x#password_file=/none/such", SourceError, "No such file"),
        ("rtsp://a@cam/x#password_file=/dev/zero", SourceError, "holds no password"),
        ("rtsp://a@cam/x#password_file=%00", SourceError, "null"),
        ("0?password_env=NEST", UsageError, "takes no password"),
        ("-?password_env=NEST", EdgeFGError, "no file"),
    ],
)
def test_passwords_that_can_not_be_used(
    text: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEST", "geheim")
    with pytest.raises(kind, match=message) as caught:
        open_source(text)
    assert "geheim" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_two_lines_is_no_password(tmp_path: Path) -> None:
    (tmp_path / "two").write_text("user\npassword\n")
    with pytest.raises(SourceError, match="one line"):
        open_source(f"rtsp://a@cam/x#password_file={tmp_path}/two")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("rtsp://u:pa#ss@cam/x", "write # as %23"),
        ("http://u:pa#ss@cam/x#timeout=5", "write # as %23"),
        ("rtsp://u:pa#fps=ss@cam/x", "write # as %23"),
        ("rtsp://u:p@a#ss@cam/x", "write # as %23"),
        ("rtsp://u#1:pass@cam/x", "write # as %23"),
        ("rtsp://u:pa/ss@cam/x", "write / as %2F"),
        ("http://u:pa?ss@cam/x", "write [?] as %3F"),
    ],
)
def test_a_password_that_ends_the_address_early_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        open_source(text, wait=True)
    assert "ss@" not in str(caught.value)
    assert "pa" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://u:p@ss@cam/x",
        "rtsp://u:p%23ss@cam/x",
        "http://cam/x?mail=me@home",
        "http://cam:80/@live",
        "http://cam/x#a@b",
        "http://[fe80::1]/x@y",
        "http://[fe80::1]:80/x@y",
    ],
)
def test_an_at_sign_elsewhere_is_left_alone(text: str) -> None:
    assert target(text) == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=20))
def test_any_password_arrives(password: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEST", password)
        url = target("http://admin@cam/x#password_env=NEST")
    address, credentials = locate(url, "cam")
    assert (address.host, address.target) == ("cam", "/x")
    assert credentials is not None
    assert (credentials.user, credentials.password) == ("admin", password)
