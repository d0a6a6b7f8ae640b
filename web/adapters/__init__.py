"""APIs for other systems, in their protocols. One module with a ``bp`` for each system."""
