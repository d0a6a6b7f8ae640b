"""Select the policies that apply to an image, by globs over ``host/repository`` and by environment."""

from __future__ import annotations

from collections.abc import Iterable

from scanner.model.glob import matches
from scanner.policy.rules import Policy


def applies(policy: Policy, repository: str, environment: str) -> bool:
    """A policy without environments applies to all. An image without a name is matched by ``**`` only."""
    # A request without an environment is not "every environment": it gets the policies that name none.
    if policy.environments and environment not in policy.environments:
        return False
    return matches(policy.images, repository)


def select(policies: Iterable[Policy], repository: str, environment: str, fallback: Policy) -> list[Policy]:
    """Return the policies that apply, by name; ``fallback`` if there is none."""
    chosen = sorted((p for p in policies if applies(p, repository, environment)), key=lambda p: p.name)
    return chosen or [fallback]
