"""Policy: (evidence, policy, now) -> Decision. Pure."""
