"""A robot's control loop at 30 Hz that never waits for the model: robot_loop.py BUNDLE SOURCE.

Each turn submits the newest frame and steers by the newest answer. The model may
take longer than a turn: newer frames then replace older ones, and the loop does not wait.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from concurrent.futures import Future

import edge_fg
from edge_fg.errors import UnansweredError

PERIOD = 1 / 30
DEADLINE = 0.2  # an answer to an older frame is useless for this robot


class NewestFrame:
    """Reads a source in a thread of its own and keeps the newest frame."""

    def __init__(self, source: edge_fg.Source) -> None:
        self.frame: edge_fg.Frame | None = None
        self.ended = False
        self.error: edge_fg.EdgeFGError | None = None
        self._source = source
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self._source:
                self.frame = frame
                # A file has no pace of its own; a camera does.
                if not self._source.live:
                    time.sleep(1 / (self._source.fps or 30))
        except edge_fg.EdgeFGError as error:
            self.error = error
        finally:
            self.ended = True  # a robot must not go on by its last image


def steer(prediction: edge_fg.Prediction | None) -> str:
    """Decide what to do: the part that would be a robot's."""
    if prediction is None or prediction.confidence < 0.5:
        return "search"
    return f"watch the {prediction.label}"


def main() -> None:
    """Run the loop for some seconds and print how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("source")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    turns = answered = superseded = 0
    longest = 0.0
    known: edge_fg.Prediction | None = None
    pending: list[Future[edge_fg.Prediction]] = []
    action = ""
    with (
        edge_fg.load(arguments.bundle) as classifier,
        edge_fg.open_source(arguments.source) as source,
    ):
        newest, seen = NewestFrame(source), None
        next_turn = time.monotonic()
        end = next_turn + arguments.seconds
        while time.monotonic() < end and not newest.ended:
            started = time.monotonic()
            frame = newest.frame
            if frame is not None and frame is not seen:
                seen = frame
                pending.append(classifier.submit(frame.image, deadline=DEADLINE))
            waiting = []
            for future in pending:
                if not future.done():
                    waiting.append(future)
                    continue
                try:
                    known = future.result()
                    answered += 1
                except UnansweredError:  # a newer frame came, or it would have been too late
                    superseded += 1
            pending = waiting
            if steer(known) != action:
                action = steer(known)
                print(action, flush=True)
            turns += 1
            longest = max(longest, time.monotonic() - started)
            next_turn += PERIOD
            time.sleep(max(0.0, next_turn - time.monotonic()))
        failure = newest.error  # before the source is closed under its reader
    print(
        f"{turns} turns, {answered} answers, {superseded} superseded, "
        f"longest work of a turn {1e3 * longest:.1f} ms"
    )
    if failure is not None:
        sys.exit(f"robot_loop: {failure}")


if __name__ == "__main__":
    main()
