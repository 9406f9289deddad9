"""edge_fg_calibration: ranges, quantisation, mixed precision and the proof of fidelity."""
