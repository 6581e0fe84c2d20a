"""The HTML page of `litlab report`."""
