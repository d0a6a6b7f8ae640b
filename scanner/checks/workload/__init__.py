"""Checks of the configuration of containers and container engines."""
