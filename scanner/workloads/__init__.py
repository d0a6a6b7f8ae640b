"""Anything that runs images, read into ``Workload``."""
