"""Layers of a network: sizes, parameters, multiply-adds, receptive fields. Imported by explanation and commands."""
