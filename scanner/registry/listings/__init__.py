"""The registry's own list of its repositories, one file for each kind of registry.

Most registries show ``/v2/_catalog`` to administrators only, or not at all, and have an API of their own that lists
repositories.
"""
