"""Verbs that train many runs: sweep, fit --seeds, reproduce; like pipelines.commands. Only cli.py may import them."""
