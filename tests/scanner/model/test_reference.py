"""One registry has one name, however an image's name spells it."""

from __future__ import annotations

import pytest

from scanner.errors import UsageError
from scanner.model.reference import Reference


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Registry.Example.COM/shop/web:1", "registry.example.com/shop/web"),
        ("REGISTRY:5000/shop/web", "registry:5000/shop/web"),
        ("[2001:DB8::1]:5000/shop/web", "[2001:db8::1]:5000/shop/web"),
        ("Docker.IO/nginx", "docker.io/library/nginx"),
        ("Index.Docker.io/library/nginx", "docker.io/library/nginx"),
        ("docker.io:443/nginx", "docker.io/library/nginx"),
        ("registry-1.docker.io:443/shop/web", "docker.io/shop/web"),
        ("nginx", "docker.io/library/nginx"),
        ("shop/web", "docker.io/shop/web"),
    ],
)
def test_the_host_has_no_case(text: str, name: str) -> None:
    """A policy for ``docker.io/**`` that a Pod's ``Docker.IO/nginx`` escaped would be no policy."""
    found = Reference.parse(text)
    assert found.name == name
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize("text", ["registry.example.com/Shop/web", "NGINX", "example.com./web", "a//b", "-x/y"])
def test_what_no_runtime_pulls_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not an image reference"):
        Reference.parse(text)
