"""What can be wrong with a dataset: overlap, duplicates, changed files."""
