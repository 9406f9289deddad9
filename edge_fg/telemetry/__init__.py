"""What a running program is doing: latencies, counters, memory, temperatures."""
