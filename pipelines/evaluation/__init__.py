"""Load a trained model, measure it, classify with it and plot it; fit the baselines of scikit-learn.

Imported by the rooms training, comparison, reporting, explanation and diagnostics, by commands and by sweeps.
"""
