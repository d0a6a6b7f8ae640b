"""The database: its schema and all functions that read or write it.

One file for each subject, and the same names in each: ``get`` returns one row's view or raises NotFoundError,
``list_<plural>`` returns many (a ``Page`` where a cursor is taken), ``counts`` counts by state.
"""
