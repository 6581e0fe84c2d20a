"""One training: fit and resume, from prepared parts to a finished run."""
