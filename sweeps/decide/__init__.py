"""Which of two configurations is better: adds seeds until an interval tells. Only sweeps.commands may import it."""
