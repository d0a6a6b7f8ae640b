"""Vulnerability engines: what they find becomes one model, whoever found it."""
