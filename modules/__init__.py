"""What learns: one model per file, each a LightningModule."""
