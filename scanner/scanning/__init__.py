"""One scan, from a reference to evidence, without a store."""
