"""What moves in front of a fixed camera: motion, tracks, smoothing over time, visits."""
