"""Dockwarden: scans container images, checks how they are built and run, verifies signatures, and decides by policy.

The package contains everything except ``web``; see ``docs/architecture.md`` for its parts and the import rules.
"""

__version__ = "0.1.0"
