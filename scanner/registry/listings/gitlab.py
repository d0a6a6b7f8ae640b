"""GitLab: its API lists the registry repositories of each project that the token's owner is a member of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from scanner.registry.client import Names
from scanner.registry.listings.base import PAGE, Api, Listing, ListingRequest, Place, by_group, number


class GitlabListing(Listing):
    """The list of GitLab."""

    id = "gitlab"
    title = "the API of GitLab"
    found_by = "host `registry.gitlab.com`, or the path `/jwt/auth` in its challenge"
    reads = "`GET /api/v4/projects?membership=true`, `GET /api/v4/projects/{id}/registry/repositories`"
    needs = "a personal, group or project access token with `read_api` as the password"
    manual = "https://docs.gitlab.com/api/container_registry/"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`. The challenge names GitLab itself, which gets the token only if it is trusted."""
        if place.host == "registry.gitlab.com":
            return "https://gitlab.com"
        realm = place.realm_parts
        if realm.path != "/jwt/auth" or (realm.scheme != "https" and not place.base.startswith("http:")):
            return None
        own = realm.hostname == urlsplit(place.base).hostname
        return f"{realm.scheme}://{realm.netloc}" if own or realm.netloc.lower() == place.token_service else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`. A page of projects is followed by the repositories of each."""
        given = asked.credentials
        if given is None or not given.password:
            raise api.refused("GitLab lists projects for an access token only")
        headers = {"PRIVATE-TOKEN": given.password.reveal()}
        last, inner = json.loads(position) if position else (0, "")
        if not inner:
            query = {"membership": "true", "order_by": "id", "sort": "asc", "pagination": "keyset"}
            query |= {"per_page": str(PAGE), "id_after": str(last)}
            got = api.get("/api/v4/projects", query, headers)
            projects = [(self._id(api, entry.get("id"), last), entry) for entry in api.entries(got.document)]
            if not projects:
                return Names(())
            with_registry = [str(one) for one, entry in projects if _has_registry(entry)]
            last = max(one for one, _ in projects)
            return Names((), json.dumps([last, json.dumps([with_registry, "", True]) if with_registry else ""]))

        def read(project: str, page: str) -> Names:
            at = number(api, page)
            path, query = f"/api/v4/projects/{project}/registry/repositories", {"page": str(at), "per_page": str(PAGE)}
            got = api.get(path, query, headers)
            names = tuple(api.text(entry, "path") for entry in api.entries(got.document))
            return Names(names, str(at + 1) if names and got.has_next else "")

        found = by_group(api, inner, tuple, read)
        return Names(found.names, json.dumps([last, found.following]))

    def _id(self, api: Api, value: object, last: int) -> int:
        # It becomes part of a path, and each page begins after the last one: a smaller number would never end.
        if not isinstance(value, int) or isinstance(value, bool) or not last < value < 1 << 53:
            raise api.unusable("a project without a usable id")
        return value


def _has_registry(project: Mapping[str, Any]) -> bool:
    return project.get("container_registry_access_level") != "disabled"
