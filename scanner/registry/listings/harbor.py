"""Harbor: its API lists the repositories of every project that the credentials may list."""

from __future__ import annotations

from scanner.registry.client import Names
from scanner.registry.listings.base import PAGE, Api, Listing, ListingRequest, Place, basic, number


class HarborListing(Listing):
    """The list of Harbor."""

    id = "harbor"
    title = "the API of Harbor"
    found_by = "its challenge names `harbor-registry`"
    reads = "`GET /api/v2.0/repositories`"
    needs = "a user, or a robot account with *List Repository*"
    manual = "https://goharbor.io/docs/main/working-with-projects/using-api-explorer/"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`. Harbor's challenge names its token service ``harbor-registry``."""
        ours = place.service == "harbor-registry" and place.realm_parts.path == "/service/token"
        return place.base if ours else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        page = number(api, position)
        query = {"page": str(page), "page_size": str(PAGE)}
        got = api.get("/api/v2.0/repositories", query, basic(asked.credentials))
        names = tuple(api.text(entry, "name") for entry in api.entries(got.document))
        total = got.headers.get("X-Total-Count", "")
        counted = total.isascii() and total.isdecimal() and int(total[:9]) > page * PAGE
        # An empty page is the last one, even if it names a next one.
        return Names(names, str(page + 1) if names and (got.has_next or counted) else "")
