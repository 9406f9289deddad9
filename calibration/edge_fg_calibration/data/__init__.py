"""Calibration images: reading, sampling, near-duplicates, splits."""
