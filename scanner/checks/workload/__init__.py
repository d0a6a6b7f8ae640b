"""Checks of how a container is run."""
