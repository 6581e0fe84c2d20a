"""Layers of a network: sizes, parameters, multiply-adds, receptive fields."""
