"""Error bars, comparisons of many rows, and their simulation: arrays in, numbers out."""
