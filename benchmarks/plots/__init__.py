"""Pictures, each a function from standings to a figure."""
