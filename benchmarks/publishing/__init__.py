"""Boards: records that are published with the repository, checked, extended and put back."""
