"""One check in this process: ``python -m edge_fg_tools.gpu_check NAME SETTINGS RESULT``."""

import sys
from pathlib import Path

import msgspec

from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check.checks import run_check
from edge_fg_tools.gpu_check.results import Settings

name, settings, result = sys.argv[1:]
found = run_check(name, msgspec.json.decode(Path(settings).read_bytes(), type=Settings))
write_atomically(Path(result), msgspec.json.encode(found))
