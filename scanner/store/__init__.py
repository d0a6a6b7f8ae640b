"""The database: schema, and the only functions that read or write it."""
