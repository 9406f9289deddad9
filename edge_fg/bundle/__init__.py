"""The bundle: one folder or zip with all that a device needs to answer as the workstation did."""

from edge_fg.bundle.manifest import PRECISIONS, Manifest, Precision
from edge_fg.bundle.reader import Bundle
from edge_fg.bundle.writer import check_output, write_bundle

__all__ = ["PRECISIONS", "Bundle", "Manifest", "Precision", "check_output", "write_bundle"]
