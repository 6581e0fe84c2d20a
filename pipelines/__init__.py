"""How one run happens: one verb of the `litlab` command per file."""
