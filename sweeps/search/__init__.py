"""Hyper-parameter search: space, study, controller, confirmation."""
