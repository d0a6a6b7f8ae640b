"""Checks of a registry's TLS, authentication and access control."""
