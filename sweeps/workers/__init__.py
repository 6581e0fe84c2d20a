"""Worker processes that train jobs in parallel: pool, child-process side, live display. Does not use Optuna.

The other rooms of sweeps may import it; it imports none of them.
"""
