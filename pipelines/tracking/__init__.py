"""Runs written to MLflow and found again."""
