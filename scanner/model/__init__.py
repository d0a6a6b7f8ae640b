"""Frozen values that all rooms share. No I/O here, and no dictionaries beyond the edge."""
