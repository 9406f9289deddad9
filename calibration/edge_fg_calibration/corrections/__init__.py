"""Corrections of an INT8 graph, each kept only where it helps."""
