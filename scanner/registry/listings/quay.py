"""Quay: its API lists the repositories of a namespace; the private ones with an OAuth token."""

from __future__ import annotations

from scanner.registry.client import Names
from scanner.registry.listings.base import Api, Listing, ListingRequest, Place, by_group

_TOKEN = "$oauthtoken"  # noqa: S105 (the user name that says that the password is an OAuth token)


class QuayListing(Listing):
    """The list of Quay."""

    id = "quay"
    title = "the API of Quay"
    found_by = "host `quay.io`, or the path `/v2/auth` in its challenge"
    reads = "`GET /api/v1/repository?namespace=`"
    needs = "user name `$oauthtoken` and an OAuth token with *View all visible repositories*; others see public ones"
    manual = "https://docs.quay.io/api/swagger/"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`. The challenge of a Quay names the path of its token service."""
        parts = place.realm_parts
        ours = parts.netloc.lower() == place.host and parts.path == "/v2/auth"
        return place.base if place.host == "quay.io" or ours else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        given = asked.credentials
        namespaces = list(asked.namespaces)
        headers: dict[str, str] = {}
        if given is not None and given.username == _TOKEN:
            headers["Authorization"] = f"Bearer {given.password.reveal()}"
        elif given is not None and given.username:
            namespaces.append(given.username.partition("+")[0])  # a robot account: namespace+name
        if not namespaces:
            raise api.refused("name a namespace, by a pattern such as my-team/**")

        def read(namespace: str, inner: str) -> Names:
            query = {"namespace": namespace, "public": "true", **({"next_page": inner} if inner else {})}
            got = api.get("/api/v1/repository", query, headers)
            entries = api.entries(got.document, "repositories")
            following = got.document.get("next_page") or ""
            if not isinstance(following, str) or len(following) > 4096:
                raise api.unusable("a next page that is no text")
            names = tuple(f"{namespace}/{api.text(entry, 'name')}" for entry in entries)
            return Names(names, following if names and following != inner else "")

        return by_group(api, position, lambda: list(dict.fromkeys(namespaces)), read)
