"""Sources that may vanish and come back: cameras and network streams."""
