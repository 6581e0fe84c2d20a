"""Train one run: prepare its parts, fit or resume it, test the selected epoch, record the results.

Imported by commands and sweeps. Imports evaluation, config, checkpoints, tracking and runtime.
"""
