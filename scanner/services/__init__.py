"""Use cases, one per file. The API, the pages and the commands call them."""
