"""Losses of features: distances to class centres, contrasts between views, redundancy."""
