"""Checks of an image's config, history and files."""
