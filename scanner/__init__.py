"""Dockwarden: scans, hardens and decides about container images.

The package holds everything but the web: see ``docs/architecture.md`` for the rooms and which way imports go.
"""

__version__ = "0.1.0"
