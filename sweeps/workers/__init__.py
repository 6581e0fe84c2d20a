"""Processes that train side by side."""
