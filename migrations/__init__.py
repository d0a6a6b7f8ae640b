"""Migrations of the database, applied by ``dockwarden db upgrade``."""
