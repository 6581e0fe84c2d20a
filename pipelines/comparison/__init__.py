"""Finished runs side by side: rows of configurations, statistics, tables and figures."""
