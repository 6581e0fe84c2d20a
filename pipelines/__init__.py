"""One run: train, evaluate, compare, report, inspect and track it. May import modules and datamodules, never sweeps."""
