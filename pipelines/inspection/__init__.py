"""Layers of a network: sizes, parameters, multiply-adds, receptive fields.

Imported by the rooms training, comparison, reporting, explanation and diagnostics, by commands and by sweeps.
"""
