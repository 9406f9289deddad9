"""Recognition inside an asyncio program: asyncio_app.py BUNDLE SOURCE.

The event loop stays free: a heartbeat ticks while frames are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools

import edge_fg


async def heartbeat(ticks: list[float]) -> None:
    """Stand in for everything else that the program does."""
    loop = asyncio.get_running_loop()
    while True:
        ticks.append(loop.time())
        await asyncio.sleep(0.01)


async def main() -> None:
    """Classify every frame while the heartbeat runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("source")
    given = parser.parse_args()
    ticks: list[float] = []
    other = asyncio.create_task(heartbeat(ticks))
    answered = 0
    with edge_fg.load(given.bundle) as classifier:
        async for result in edge_fg.Pipeline(given.source, classifier):
            if result.prediction is not None and answered % 30 == 0:
                print(result.frame.number, result.prediction.label, flush=True)
            answered += 1
    other.cancel()
    longest = max(b - a for a, b in itertools.pairwise(ticks))
    print(f"{answered} answers, {len(ticks)} heartbeats, longest pause {1e3 * longest:.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
