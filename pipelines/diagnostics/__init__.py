"""The checks of `litlab doctor`, one subject per file. Importing a file imports nothing heavy."""
