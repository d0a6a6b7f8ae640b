"""Checks: one file per rule, three rooms (image, workload, registry), one contract each in ``base``."""
