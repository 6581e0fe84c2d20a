"""Explain the trained network of a run: the methods of `litlab explain`. Only commands and sweeps may import it.

A method is a function that takes a `Target` (a frozen network) and typed options, and returns an `Explanation`: a
figure and its numbers. results.py writes it to files, and logs it as a child of the explained run.
"""
