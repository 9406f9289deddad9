"""What the calibration images do to each tensor."""
