"""The checks: pytest tests, each run in a process of its own."""
