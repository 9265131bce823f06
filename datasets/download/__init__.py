"""Fetching what publishers offer: files, archives, single images."""
