"""Registered datasets, one a file."""
