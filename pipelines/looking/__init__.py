"""Looking inside trained networks: one way to look a file, for `litlab explain`."""
