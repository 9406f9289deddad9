"""How long `import edge_fg` takes beyond `import numpy, cv2`, side by side.

    python tools/benchmarks/import_time.py [--rounds 15]

Each round starts both in fresh processes, one after the other; the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

_CODE = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def seconds(modules: str) -> float:
    """Return the seconds that a fresh process takes to import `modules`."""
    command = [sys.executable, "-c", _CODE.format(modules)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    pairs = [(seconds("numpy, cv2"), seconds("numpy, cv2, edge_fg")) for _ in range(rounds)]
    base = statistics.median(pair[0] for pair in pairs)
    ours = statistics.median(pair[1] for pair in pairs)
    print(
        json.dumps(
            {"numpy_cv2_s": round(base, 4), "with_edge_fg_s": round(ours, 4)}
            | {"difference_s": round(ours - base, 4), "rounds": rounds}
        )
    )


if __name__ == "__main__":
    main()
