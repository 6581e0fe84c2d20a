"""The methods of `litlab explain`, one per file."""
