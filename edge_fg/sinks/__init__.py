"""Where answers go: files, windows, viewers, programs."""
