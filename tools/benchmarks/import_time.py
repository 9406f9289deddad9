"""How long `import edge_fg`, and using it, take beyond `import numpy, cv2`, side by side.

    python tools/benchmarks/import_time.py [--rounds 15]

Each round starts all three in fresh processes, one after the other; the medians are compared.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from common import parser_of

_CODE = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


def seconds(program: str) -> float:
    """Return the seconds that a fresh process takes for `program`."""
    command = [sys.executable, "-c", _CODE.format(program)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    """Measure and print one JSON document."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    base = "import numpy, cv2"
    programs = {
        "numpy_cv2": base,
        "import": f"{base}, edge_fg",
        "load_and_pipeline": f"{base}, edge_fg; edge_fg.load, edge_fg.Pipeline",
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            times[name].append(seconds(program))
    medians = {name: statistics.median(found) for name, found in times.items()}
    beyond = {f"{name}_s": round(time - medians["numpy_cv2"], 4) for name, time in medians.items()}
    beyond["numpy_cv2_s"] = round(medians["numpy_cv2"], 4)
    print(json.dumps({**beyond, "rounds": rounds}))


if __name__ == "__main__":
    main()
