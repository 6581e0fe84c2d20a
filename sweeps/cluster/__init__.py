"""Trainings on the nodes of a Ray cluster: nodes, agents and the pool. The only room that imports Ray, an extra.

The rooms above it may import it; it imports the workers. Only `options` and `place` are
imported without `--cluster`.
"""
