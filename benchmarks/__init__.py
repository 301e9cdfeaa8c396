"""Speed against peers, each pair interleaved in one run: `python -m benchmarks`."""
