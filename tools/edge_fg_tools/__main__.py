"""`python -m edge_fg_tools` is `edge-fg`."""

import sys

from edge_fg_tools.cli import main

sys.exit(main())
