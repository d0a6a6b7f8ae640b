"""Registries: the distribution-spec client, the blob store, and layers read into facts under limits."""
