"""The HTML page of `litlab report`, and what other pages share with it.

Imported by commands and sweeps. Imports no torch, unless the runs have figures that need their models.
"""
