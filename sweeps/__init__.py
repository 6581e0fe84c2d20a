"""How many runs happen: searches over an experiment's keys."""
