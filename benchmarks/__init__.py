"""Speed against peers, on one thread, each pair interleaved in one run: `python -m benchmarks`."""
