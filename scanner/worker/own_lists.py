"""A registry's own list of repositories, as polls and imports read it: which one it has, and its next page."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from scanner import catalog
from scanner.config import Settings
from scanner.errors import RemoteError, UsageError
from scanner.model.reference import Reference
from scanner.patterns import lazy
from scanner.registry.auth import CredentialStore
from scanner.registry.client import Access, Names, RegistryClient
from scanner.registry.cloud.access import CloudCredentials
from scanner.registry.listings.base import Api, ListingRequest, Place

_NAMESPACE = lazy(r"[a-z0-9][a-z0-9._-]{0,99}")


def namespaces(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the first parts of patterns that name one: ``shop`` of ``shop/**``."""
    firsts = (pattern.partition("/")[0] for pattern in patterns if "/" in pattern)
    return tuple(dict.fromkeys(first for first in firsts if _NAMESPACE.fullmatch(first)))


class OwnLists:
    """The APIs of one registry that list its repositories. Close it after use.

    ``requests`` counts what was sent; ``pause``: the seconds that the API wants to be left alone.
    """

    def __init__(
        self,
        client: RegistryClient,
        settings: Settings,
        access: Access,
        credentials: CredentialStore,
        include: Iterable[str],
    ) -> None:
        self._client, self._settings, self._access, self._credentials = client, settings, access, credentials
        self._include = tuple(include)
        self._place = Place(client.host, client.address, access.token_service)
        self._apis: dict[str, Api] = {}
        self.requests, self.pause = 0, 0.0

    def close(self) -> None:
        for api in self._apis.values():
            api.close()

    def find(self) -> list[str]:
        """Return the ids of the lists that this registry has. Asks the registry what it is if its host does not say.

        Raises RemoteError.
        """
        if not (found := self._of(self._place)):
            self._ask_what_it_is()
            found = self._of(self._place)
        return found

    def page(self, identifier: str, position: str) -> Names:
        """Return one page. ``position``: `Names.following` of the page before. Raises ScannerError."""
        listing = catalog.listings()[identifier]
        api = self._api(identifier)
        cloud = self._credentials.temporary(self._client.host)
        asked = ListingRequest(
            self._client.host,
            self._credentials.find(self._client.host),
            cloud.access if isinstance(cloud, CloudCredentials) else None,
            namespaces(self._include),
        )
        before = api.requests
        try:
            return listing.read(api, asked, position)
        finally:
            self.requests += api.requests - before
            self.pause = api.pause

    def _of(self, place: Place) -> list[str]:
        return [name for name, listing in catalog.listings().items() if listing.origin(place) is not None]

    def _ask_what_it_is(self) -> None:
        self.requests += 1
        challenge = self._client.challenge()
        self.pause = self._client.advised_pause
        if challenge is not None:
            realm, service = (challenge.parameters.get(name, "") for name in ("realm", "service"))
            host, base, trusted = self._place.host, self._place.base, self._place.token_service
            self._place = Place(host, base, trusted, realm, service)

    def _api(self, identifier: str) -> Api:
        if identifier not in self._apis:
            listing = catalog.listings()[identifier]
            origin = listing.origin(self._place)
            if origin is None:  # a later slice: what the registry is was asked in the first one
                self._ask_what_it_is()
                origin = listing.origin(self._place)
            if origin is None:
                raise RemoteError(f"{self._client.host} is no longer {listing.title}", retryable=False)
            chosen = {_name(self._client.address), _name(f"//{self._access.token_service}")} - {""}
            # A private CA is trusted for the hosts it was given for, not for a public API.
            ca_file = self._access.ca_file if _name(origin) in chosen else None
            self._apis[identifier] = Api(self._settings, origin, ca_file=ca_file, here=chosen)
        return self._apis[identifier]


def _name(address: str) -> str:
    return urlsplit(address).hostname or ""


def is_repository(host: str, name: str) -> bool:
    """Whether a listed name is one of a repository, as references write it."""
    try:
        return Reference.parse(f"{host}/{name}").repository == name
    except UsageError:
        return False
