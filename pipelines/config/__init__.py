"""Turn a command line and YAML files into a data module, a module and a trainer, and compare configurations.

Imported by the rooms that train or evaluate. Imports checkpoints, tracking and runtime.
"""
