"""The advisory database and exploit feeds: age, origin, download, replacement."""
