"""APIs that other systems call: each speaks its caller's protocol. One module, with a ``bp``, per system."""
