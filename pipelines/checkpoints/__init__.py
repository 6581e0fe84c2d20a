"""Checkpoints that are written atomically and verified when read, with the random state that training resumes from.

Imported by config and the rooms above it. Imports tracking and runtime only.
"""
