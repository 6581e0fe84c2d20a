"""Published claims: how they are stored, run, measured and judged, and the page of results.

Imported by sweeps.commands. Imports sweeps.workers and pipelines.
"""
