"""One configuration trained with several seeds, and their summary run. Only sweeps.commands may import it."""
