"""Docker Hub: its API lists the repositories of a namespace; the private ones with an access token."""

from __future__ import annotations

import json

from scanner.config import Secret
from scanner.model.reference import DOCKER_HUB
from scanner.registry.client import Names
from scanner.registry.cloud.base import secret_of
from scanner.registry.listings.base import PAGE, Api, Listing, ListingRequest, Place, by_group, number

_OFFICIAL = "library"  # Docker's own images: nobody means to poll all of them


class DockerHubListing(Listing):
    """The list of Docker Hub."""

    id = "dockerhub"
    title = "the API of Docker Hub"
    found_by = "host `docker.io`"
    reads = "`POST /v2/auth/token`, `GET /v2/namespaces/{namespace}/repositories` of hub.docker.com"
    needs = "user name and access token; without them, public repositories"
    manual = "https://docs.docker.com/reference/api/hub/latest/"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`."""
        return "https://hub.docker.com" if place.host == DOCKER_HUB else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        given = asked.credentials
        own = (given.username.lower(),) if given is not None and given.username else ()
        namespaces = [name for name in dict.fromkeys((*asked.namespaces, *own)) if name != _OFFICIAL]
        if not namespaces:
            raise api.refused("name a namespace, by a pattern such as my-team/**")
        if given is not None and given.username and not api.token:
            body = json.dumps({"identifier": given.username, "secret": given.password.reveal()}).encode()
            got = api.post("/v2/auth/token", body, {"Content-Type": "application/json"})
            api.token = secret_of(got.document if isinstance(got.document, dict) else {}, "access_token", api.host)

        def read(namespace: str, inner: str) -> Names:
            page = number(api, inner)
            path, query = f"/v2/namespaces/{namespace}/repositories", {"page": str(page), "page_size": str(PAGE)}
            got = api.get(path, query, _bearer(api.token))
            entries = api.entries(got.document, "results")
            follows = api.follows(got.document.get("next"))
            names = tuple(f"{namespace}/{api.text(entry, 'name')}" for entry in entries)
            return Names(names, str(page + 1) if names and follows else "")

        return by_group(api, position, lambda: namespaces, read)


def _bearer(token: Secret) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.reveal()}"} if token else {}
