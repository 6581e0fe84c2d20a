"""Published claims: run, measured and judged."""
