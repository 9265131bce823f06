"""What finished trials say: records, metrics, intervals, standings, tables."""
