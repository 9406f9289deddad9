"""One check in this process: ``python -m edge_fg_tools.gpu_check NAME SETTINGS RESULT``."""

import sys
from pathlib import Path

import msgspec

from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check.plugin import run_in_this_process
from edge_fg_tools.gpu_check.settings import Settings

name, settings, result = sys.argv[1:]
(entry,) = run_in_this_process(
    [name], msgspec.json.decode(Path(settings).read_bytes(), type=Settings)
)
write_atomically(Path(result), msgspec.json.encode(entry))
