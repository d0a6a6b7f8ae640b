"""Google Artifact Registry: its API lists the Docker repositories of a project, and the images in each."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from scanner.errors import UsageError
from scanner.model import cloud_registry
from scanner.model.service_account import read_key
from scanner.patterns import lazy
from scanner.registry.client import Names
from scanner.registry.listings.base import MOST_NAMES, Api, Listing, ListingRequest, Place, by_group

_HOST = lazy(r"([a-z0-9-]{1,63})-docker\.pkg\.dev")
_PROJECT = lazy(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REPOSITORY = re.compile(r"projects/[a-z0-9.:-]{4,80}/locations/[a-z0-9-]{1,63}/repositories/([a-z0-9.-]{1,63})")
# gcr.io hosts are served by repositories of this name in these locations.
_GCR = {"gcr.io": "us", "us.gcr.io": "us", "eu.gcr.io": "europe", "asia.gcr.io": "asia"}


class GarListing(Listing):
    """The list of Google Artifact Registry."""

    id = "gar"
    title = "the API of Google Artifact Registry"
    found_by = "hosts `*-docker.pkg.dev` and `gcr.io`"
    reads = "`projects.locations.repositories.list`, `….packages.list` of artifactregistry.googleapis.com"
    needs = "credentials `gar` with the role *Artifact Registry Reader*"
    manual = "https://cloud.google.com/artifact-registry/docs/reference/rest"

    def origin(self, place: Place) -> str | None:
        """See `Listing.origin`."""
        ours = cloud_registry.is_host(cloud_registry.GAR, place.host)
        return "https://artifactregistry.googleapis.com" if ours else None

    def page(self, api: Api, asked: ListingRequest, position: str) -> Names:
        """See `Listing.page`."""
        given = asked.credentials
        if given is None or given.username != "oauth2accesstoken":
            raise api.refused("it lists for an access token only; choose credentials gar")
        headers = {"Authorization": f"Bearer {given.password.reveal()}"}
        found = _HOST.fullmatch(asked.host)
        location = found[1] if found else _GCR[asked.host]

        def repositories() -> list[str]:
            projects = [name for name in asked.namespaces if _PROJECT.fullmatch(name)]
            projects += [name for name in (_project_of(asked),) if name]
            if not projects:
                raise api.refused("name a project, by a pattern such as my-project/**")
            return [one for project in dict.fromkeys(projects) for one in _in_project(project)]

        def _in_project(project: str) -> list[str]:
            path = f"/v1/projects/{project}/locations/{location}/repositories"
            got = api.get(path, {"pageSize": str(MOST_NAMES)}, headers)
            if got.document == {}:  # the format of an empty list
                return []
            entries = api.entries(got.document, "repositories")
            names = [api.text(entry, "name") for entry in entries if entry.get("format", "DOCKER") == "DOCKER"]
            # They become paths: only what is in this project and location.
            ours = [name for name in names if name.startswith(path[4:] + "/") and _REPOSITORY.fullmatch(name)]
            return [one for one in ours if found or one.endswith(f"/{asked.host}")]

        def read(repository: str, inner: str) -> Names:
            query = {"pageSize": str(MOST_NAMES), **({"pageToken": inner} if inner else {})}
            got = api.get(f"/v1/{quote(repository, safe='/')}/packages", query, headers)
            if got.document == {}:
                return Names(())
            following = got.document.get("nextPageToken") if isinstance(got.document, dict) else None
            if following is not None and not isinstance(following, str):
                raise api.unusable("a next page that is no text")
            _, project, _, _, _, name = repository.split("/")
            prefix = f"{project}/{name}" if found else project
            packages = [api.text(entry, "name") for entry in api.entries(got.document, "packages")]
            names = tuple(f"{prefix}/{unquote(one.rpartition('/')[2])}" for one in packages)
            return Names(names, following if following and following != inner else "")

        return by_group(api, position, repositories, read, most=MOST_NAMES)


def _project_of(asked: ListingRequest) -> str:
    """The project of the service account whose key is stored: ``name@PROJECT.iam.gserviceaccount.com``."""
    if asked.cloud is None or not asked.cloud.password:
        return ""
    try:
        domain = read_key(asked.cloud.password.reveal()).email.rpartition("@")[2]
    except UsageError:
        return ""
    project = domain.removesuffix(".iam.gserviceaccount.com")
    return project if project != domain and _PROJECT.fullmatch(project) else ""
