"""Hyper-parameter search: space, study, trials, controller, confirmation, the study's run. Trains with sweeps.workers.

Only sweeps.commands may import it.
"""
