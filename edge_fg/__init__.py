"""edge_fg: fine-grained image recognition on edge devices."""
