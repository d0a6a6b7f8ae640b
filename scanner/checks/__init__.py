"""Checks: one file per rule, in the packages image, workload and registry. Their base classes are in ``base``."""
