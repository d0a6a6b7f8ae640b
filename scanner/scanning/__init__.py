"""One scan, from a reference to evidence. Needs no database."""
