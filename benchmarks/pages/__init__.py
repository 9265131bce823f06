"""The report of a results folder as one HTML file."""
