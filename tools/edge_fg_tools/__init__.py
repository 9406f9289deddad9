"""edge_fg_tools: build, compile, evaluate and measure, and the command line."""
