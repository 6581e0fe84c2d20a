"""One configuration with several seeds."""
