"""The preview as a sink."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from edge_fg.errors import UsageError
from edge_fg.http_server import check_bindable
from edge_fg.result import Result
from edge_fg.sinks.base import Annotate, BaseSink
from edge_fg.sinks.preview.latest_results import LatestResults
from edge_fg.sinks.preview.server import PreviewServer, StatsFunction
from edge_fg.sinks.result_annotator import ResultAnnotator
from edge_fg.sources import Source


class PreviewSink(BaseSink):
    """Shows annotated frames to browsers.

    ``/`` is a page with all sources, ``/stream.mjpg?source=0`` Motion JPEG, ``/snapshot.jpg`` the
    newest image, ``/stats.json`` what the pipeline is doing, ``/healthz`` 200 while frames come
    and 503 otherwise. There is no password: see `allow_remote`.

    A slow viewer gets fewer images, which affects no other viewer. Without viewers, nothing is
    drawn.

    Parameters
    ----------
    port
        TCP port; 0 takes a free one, see `address`.
    host
        Address to bind to.
    allow_remote
        Allow a `host` that other machines can reach. Then everybody on the network can look.
    allowed_hosts
        Names that browsers may use besides addresses and this machine's own.
    quality
        Of the JPEGs, 1..95.
    max_fps
        Images a second for one viewer.
    max_viewers
        Streams at a time.
    annotate
        Draws the answer; None takes a `ResultAnnotator`.
    stats
        Returns what ``/stats.json`` says of the pipeline, like
        ``lambda: pipeline.stats().to_dict()``.

    Raises
    ------
    UsageError
        A value is out of range, or other machines can reach `host` and `allow_remote` is False.
    OutputError
        From `open`: the port is taken, or `host` is not an address of this machine.
    """

    def __init__(
        self,
        port: int = 8080,
        host: str = "127.0.0.1",
        *,
        allow_remote: bool = False,
        allowed_hosts: tuple[str, ...] = (),
        quality: int = 80,
        max_fps: float = 15.0,
        max_viewers: int = 8,
        annotate: Annotate | None = None,
        stats: StatsFunction | None = None,
    ) -> None:
        super().__init__("preview", lossless=False)
        check_bindable(host, allow_remote)
        if not 0 <= port <= 65535:
            raise UsageError(f"a port is between 0 and 65535, not {port}")
        if not 1 <= quality <= 95:
            raise UsageError(f"quality must be between 1 and 95, not {quality}")
        if not (math.isfinite(max_fps) and max_fps > 0 and max_viewers > 0):
            raise UsageError("max_fps and max_viewers must be above zero")
        self._wanted = (host, port)
        self._annotate = annotate or ResultAnnotator()
        self._quality = quality
        self._make_server = partial(
            PreviewServer,
            self._wanted,
            allowed_hosts=allowed_hosts,
            max_viewers=max_viewers,
            max_fps=max_fps,
            stats=stats,
        )
        self._server: PreviewServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on, or will listen on."""
        return self._wanted if self._server is None else self._server.address

    @property
    def url(self) -> str:
        """Address of the page for a browser on this machine."""
        host, port = self.address
        if host in ("0.0.0.0", "::"):  # noqa: S104  compared, not bound to
            host = "localhost"
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def open(self, sources: Sequence[Source]) -> None:
        """Start serving."""
        names = tuple(source.name for source in sources)
        self._server = self._make_server(LatestResults(names, self._annotate, self._quality))

    def __call__(self, result: Result[Any], /) -> None:
        """Show a result to the viewers."""
        if self._server is not None and not result.closing:
            self._server.latest.put(result)

    def close(self) -> None:
        """Stop serving; streams end."""
        server, self._server = self._server, None
        if server is not None:
            server.latest.close()
            server.close()
