"""Parts of `benchmarks/gpu.py`. Each job runs in a separate process and appends its results to a shared file."""
