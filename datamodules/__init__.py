"""LightningDataModules, one data source per file."""
