"""LightningModules, one model per file."""
