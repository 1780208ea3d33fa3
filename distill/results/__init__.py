"""What files and tables are made of: figures, metrics, rows. Plain data, to JSON and back; no torch."""
