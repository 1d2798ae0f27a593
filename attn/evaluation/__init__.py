"""Metrics: what the numbers in the tables mean, and how they are computed."""
