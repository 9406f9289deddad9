"""Where INT8 goes, with which ranges, and whether a backend will take it; FP16."""
