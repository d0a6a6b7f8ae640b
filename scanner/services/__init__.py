"""The use cases, one a file: what the API, the pages and the commands all do."""
