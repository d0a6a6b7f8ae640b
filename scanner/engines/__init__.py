"""Vulnerability engines. Their reports are converted to one model."""
