"""GitHub's container registry: the API of GitHub lists the packages of an organisation or a person."""

from __future__ import annotations

from urllib.parse import quote

from scanner.errors import NotFoundError
from scanner.registry.client import Names
from scanner.registry.listings.base import PAGE, Api, Listing, ListingRequest, Place, by_group, number

_PERSON = "users"


class GhcrListing(Listing):
    """The list of GHCR."""

    id = "ghcr"
    title = "the API of GitHub"
    found_by = "host `ghcr.io`"
    reads = "`GET /orgs/{org}/packages`, `GET /users/{user}/packages` of api.github.com"
    needs = "a personal access token (classic) with `read:packages`"
    manual = "https://docs.github.com/en/rest/packages/packages"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`."""
        return "https://api.github.com" if place.host == "ghcr.io" else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        given = asked.credentials
        if given is None or not given.password:
            raise api.refused("GitHub lists packages for a personal access token only")
        headers = {
            "Authorization": f"Bearer {given.password.reveal()}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }

        def ask(kind: str, owner: str, page: int) -> Names:
            query = {"package_type": "container", "per_page": str(PAGE), "page": str(page)}
            got = api.get(f"/{kind}/{quote(owner, safe='')}/packages", query, headers)
            names = tuple(f"{owner}/{api.text(entry, 'name').lower()}" for entry in api.entries(got.document))
            return Names(names, f"{kind} {page + 1}" if names and got.has_next else "")

        def read(owner: str, inner: str) -> Names:
            kind, _, page = inner.partition(" ")
            if kind:
                return ask(_PERSON if kind == _PERSON else "orgs", owner, number(api, page))
            try:
                return ask("orgs", owner, 1)
            except NotFoundError:
                return ask(_PERSON, owner, 1)

        owners = list(dict.fromkeys((*asked.namespaces, given.username.lower())))
        return by_group(api, position, lambda: owners, read)
