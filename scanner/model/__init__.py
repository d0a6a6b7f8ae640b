"""Frozen values that every room shares. No I/O here, and no dictionaries past the edge."""
