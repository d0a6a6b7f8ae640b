"""The database: its schema and all functions that read or write it."""
