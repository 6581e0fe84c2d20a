"""The parts of `benchmarks/gpu.py`. Each job runs in a process of its own, and appends its results to one file."""
