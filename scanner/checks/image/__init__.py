"""Checks of how an image is built: its config, history and files."""
