"""The verbs that train many runs: sweep, fit --seeds, reproduce. As pipelines.commands; only cli.py may call them."""
