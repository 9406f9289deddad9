"""What moves before a fixed camera: motion, tracks, fusion over time, visits."""
