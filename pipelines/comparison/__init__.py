"""Compare finished runs: rows over seeds, intervals, tables and figures.

Imported by commands, reporting and sweeps. Only `model_plots` imports torch.
"""
