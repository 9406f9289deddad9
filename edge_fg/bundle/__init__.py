"""The bundle: one folder or zip with all that a device needs to answer as the workstation did.

Writing one is `edge_fg.bundle.writer`, which a device need not import.
"""

from edge_fg.bundle.manifest import PRECISIONS, Manifest, Precision
from edge_fg.bundle.reader import Bundle

__all__ = ["PRECISIONS", "Bundle", "Manifest", "Precision"]
