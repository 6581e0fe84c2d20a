"""Checkpoints written atomically, verified when read, and the random state in them."""
