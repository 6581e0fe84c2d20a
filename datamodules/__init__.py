"""What we learn from: one data source per file, each a LightningDataModule."""
