"""A sample: a registry that lists nothing."""

from __future__ import annotations

from scanner.registry.client import Names
from scanner.registry.listings.base import Api, Listing, ListingRequest, Place


class SampleListing(Listing):
    """The list of a registry that nobody has."""

    id = "sample-listing"
    title = "the API of the sample registry"
    found_by = "host `sample.example`"
    reads = "`GET /repositories`"
    needs = "nothing"
    manual = "https://example.com/api"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`."""
        return place.base if place.host == "sample.example" else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        return Names(())
