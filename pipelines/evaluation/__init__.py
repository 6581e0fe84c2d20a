"""A trained model measured: validation, test, prediction, baselines and their figures."""
