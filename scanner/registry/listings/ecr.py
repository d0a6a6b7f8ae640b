"""Amazon ECR: ``DescribeRepositories`` lists the repositories of an account and region."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from scanner.model import cloud_registry
from scanner.registry.client import Names
from scanner.registry.cloud import aws
from scanner.registry.cloud.base import Surroundings
from scanner.registry.cloud.sigv4 import signed_headers
from scanner.registry.listings.base import MOST_NAMES, Api, Listing, ListingRequest, Place

_TARGET = "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories"


class EcrListing(Listing):
    """The list of Amazon ECR."""

    id = "ecr"
    title = "the API of Amazon ECR"
    found_by = "hosts of Amazon ECR"
    reads = "`DescribeRepositories`"
    needs = "credentials `ecr` whose policy allows `ecr:DescribeRepositories`"
    manual = "https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeRepositories.html"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`."""
        return aws.Endpoints.of(place.host).ecr if cloud_registry.is_host(cloud_registry.ECR, place.host) else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        if asked.cloud is None:
            raise api.refused("it lists for an access key or a role only; choose credentials ecr")
        places = aws.Endpoints.of(asked.host)
        keys = aws.keys_of(asked.cloud, Surroundings(api.settings), places)
        wanted = {"registryId": asked.host[:12], "maxResults": MOST_NAMES}
        body = json.dumps(wanted | ({"nextToken": position} if position else {})).encode()
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": _TARGET}
        url, now = f"{api.origin}/", datetime.now(UTC)
        got = api.post("/", body, signed_headers("POST", url, headers, body, keys, places.region, "ecr", now))
        names = tuple(api.text(entry, "repositoryName") for entry in api.entries(got.document, "repositories"))
        following = got.document.get("nextToken") or ""
        if not isinstance(following, str):
            raise api.unusable("a next page that is no text")
        return Names(names, following)
