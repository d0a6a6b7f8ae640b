"""Polls and imports of registries: jobs that walk through repositories and tags in short slices.

A slice sends at most a few dozen requests, commits its findings together with its position, and queues the rest. So a
killed worker repeats at most one slice, a tag is found exactly once, many registries take turns, and a registry that
limits us is left alone without occupying a thread.

Repositories come from the registry's own list, or from ``/v2/_catalog``, or from the tag ledger: the first that lists
any. After an own list, the repositories that only the ledger has follow: a list can be of one namespace, or of what the
credentials may list, which is less than what they may pull.

A poll asks each tag for its digest by HEAD. A digest that differs from the tag ledger is a push that nothing announced,
unless a delivery is still under way: it is judged after a moment. An import also queues scans of tags that the ledger
has, if no evidence is stored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from scanner import catalog
from scanner.config import Secret, Settings, secret_key
from scanner.errors import NotFoundError, RemoteError, ScannerError, UsageError
from scanner.model import glob
from scanner.model.reference import Digest, Reference
from scanner.model.scan import Lane, Progress, ScanRequest, ScanState, Stage
from scanner.model.untrusted import clean_text
from scanner.registry.client import Names, RegistryClient
from scanner.registry.listings.base import REFUSED
from scanner.store import base_watch, image_events, jobs, outbox, projects, reconciliation, registries, scans, tags
from scanner.store.reconciliation import FoundKind, ListBy, listed_by
from scanner.store.session import Database, epoch
from scanner.worker import server_scan
from scanner.worker.own_lists import OwnLists, is_repository

T = TypeVar("T")

# Then the worker writes its position and looks at other work.
_SLICE_REQUESTS, _SLICE_SECONDS = 50, 15.0
_FASTEST = 0.05  # seconds from request to request, on average
_GRACE_SECONDS = 10.0  # a push that was seen may be announced by a delivery that is under way
_FIRST_MOST = 200  # tags that were there before the first poll: with more, an import is meant
_AHEAD, _AHEAD_PAUSE = 50, 3.0  # unfinished scans of an import, and how long it waits for them
# Of one walk: a hostile registry lists without an end.
_REPOSITORIES_MOST, _TAGS_MOST = 20_000, 500_000
_PAGES_MOST = 10_000  # of a list of repositories: a hostile one never ends
CATALOG, KNOWN = "catalog", "known"
_TITLES = {
    CATALOG: "the catalogue of the registry (/v2/_catalog)",
    KNOWN: "the tag ledger, as pushes and scans named them",
}
# What an own list answers where it is not offered, or not to us. Other errors are shown as such.
_NOT_OFFERED = frozenset({REFUSED, "not_found", "registry_unreachable", "unknown_host", "address_refused"})
_POLL_SECONDS_MOST = 86400.0
_PROBLEMS_KEPT = 20  # sentences that are shown; the counts have all
_FAILURES_MOST, _REFUSALS_MOST = 3, 50  # in a row, before the registry counts as failing, or as closed to us
_LIMITED_MOST, _LIMITED_PAUSE = 20, 60.0  # times in a row that the registry limits us; seconds, if it names none
Report = Callable[[Progress], None]


@dataclass
class Walk:
    """The position, counts and findings of a job: its stored parameters.

    ``page`` and ``tags_page`` are paths of pages to read next; None: no further page. ``seen``: tags with a new digest
    that are judged later: repository, tag, digest, and the time they were seen.
    """

    now: bool = False  # a person waits: requests are not spread
    dry_run: bool = False
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    phase: str = ""
    candidates: list[str] | None = None  # where repositories could be listed, best first; None: not known yet
    chosen: bool = False  # an administrator chose the list: no other kind is tried
    listing: str = ""  # where they are listed: the id of an own list, catalog, or known (the tag ledger)
    listing_title: str = ""
    listing_note: str = ""  # why a better one is not used
    listed: int = 0  # repositories that it named
    pages: int = 0
    last_page: str = ""
    rest: bool = False  # the own list is read: the repositories that only the ledger has follow
    page: str | None = ""
    repositories: list[str] = field(default_factory=list)
    repository: str = ""
    tags_page: str | None = None
    tags: list[str] = field(default_factory=list)
    seen: list[list[Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    complete: bool = True  # False: something could not be listed
    limited: int = 0  # slices in a row whose first request was refused for its rate
    held: bool = False  # the registry asked for the pause that follows
    began: float = 0.0
    spread: float = _FASTEST  # seconds from request to request

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Walk:
        return cls(**parameters)

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def note_problem(self, text: str) -> None:
        self.complete = False
        self.count("errors")
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(clean_text(text, 300))

    def restart(self, phase: str) -> None:
        """Begin at the first repository again."""
        self.phase, self.page, self.repositories = phase, "", []
        self.rest, self.listed, self.pages, self.last_page = False, 0, 0, ""
        self.repository, self.tags_page, self.tags = "", None, []
        self.counts["repositories"] = self.counts["tags"] = 0

    @property
    def ended(self) -> bool:
        return self.page is None and not (self.repositories or self.tags) and self.tags_page is None


class _LimitedError(Exception):
    """The registry wants no request for some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def run(job: jobs.Job, settings: Settings, database: Database, registry_id: str, report: Report) -> None:
    """Run one slice of a poll or an import. Raises ScannerError, or LeaseLost if another worker owns the job now."""
    with database.read() as session:
        registry = registries.get(session, registry_id)
    kind = _Import if job.kind == jobs.IMPORT else _Poll
    kind(job, settings, database, registry, secret_key(settings), report).run()


class _Slice:
    """What a poll and an import share: the walk."""

    def __init__(
        self,
        job: jobs.Job,
        settings: Settings,
        database: Database,
        registry: registries.RegistryView,
        key: Secret,
        report: Report,
    ) -> None:
        self.job, self.settings, self.database, self.registry = job, settings, database, registry
        self.walk = Walk.of(job.parameters)
        self._key, self._report = key, report
        self._ledger: tuple[str, Mapping[str, str]] = ("", {})
        self._requests = self._failures = self._refusals = 0
        self._lists: OwnLists

    def run(self) -> None:
        """Run the slice and queue the next one, or end the job."""
        began = time.monotonic()
        access, credentials = server_scan.registry_access(self.settings, self.database, self._key, self.registry.host)
        pause = 0.0
        ends = began + _SLICE_SECONDS
        with RegistryClient(self.registry.host, self.settings, credentials, access, tries=1) as client:
            self._lists = OwnLists(client, self.settings, access, credentials, self.walk.include)
            try:
                while not self.walk.ended and self._requests < _SLICE_REQUESTS and time.monotonic() < ends:
                    self._report(self.progress())
                    self._step(client)
                    if pause := max(client.advised_pause, self._lists.pause):
                        raise _LimitedError(pause)
            except _LimitedError as limited:
                self.walk.held = True
                self.walk.limited = self.walk.limited + 1 if self._requests <= 1 else 0
                self.walk.count("limited")
                pause = max(limited.seconds, 1.0)
            else:
                self.walk.held, self.walk.limited = False, 0
            finally:
                self._lists.close()
        if self.walk.limited > _LIMITED_MOST:
            raise RemoteError(
                f"{self.registry.host} is limiting our requests", reason="registry_rate_limited", retryable=False
            )
        self.walk.count("requests", self._requests)
        spent = time.monotonic() - began
        self._end(max(pause, self._requests * self.walk.spread - spent, 0.0))

    def _step(self, client: RegistryClient) -> None:
        """Send one request, and advance."""
        walk = self.walk
        try:
            if walk.tags:
                tag = walk.tags[0]
                self._look_at(client, tag)
                walk.tags.pop(0)
            elif walk.tags_page is not None:
                self._read_tags(client)
            elif walk.repositories:
                walk.repository, walk.tags_page = walk.repositories.pop(0), ""
                return
            else:
                self._read_repositories(client)
            self._failures = self._refusals = 0
        except RemoteError as error:
            if error.reason == "registry_rate_limited":
                raise _LimitedError(error.retry_after or _LIMITED_PAUSE) from error
            self._failures += error.retryable
            self._refusals += not error.retryable
            if self._failures >= _FAILURES_MOST or self._refusals >= _REFUSALS_MOST:
                raise
            self._skip(error)
        except ScannerError as error:
            self._skip(error)

    def _skip(self, problem: ScannerError) -> None:
        """Leave out the tag, or the rest of the repository, that caused a problem. Raises any other problem."""
        walk = self.walk
        if not walk.tags and walk.tags_page is None:
            raise problem
        what = f"{walk.repository}:{walk.tags[0]}" if walk.tags else walk.repository
        walk.note_problem(f"{what}: {problem}")
        if walk.tags:
            walk.tags.pop(0)
        else:
            walk.tags_page = None

    def _read_repositories(self, client: RegistryClient) -> None:
        walk = self.walk
        if walk.listing == KNOWN or walk.rest:
            self._read_known()
            return
        if not walk.candidates:
            # A job from before an upgrade has chosen already.
            walk.candidates = [walk.listing] if walk.listing else self._sources()
            if walk.candidates == [KNOWN]:
                walk.listing, walk.listing_title = KNOWN, _TITLES[KNOWN]
                return
        source = walk.listing or walk.candidates[0]
        try:
            found = self._page_of(client, source)
        except ScannerError as error:
            if not self._may_leave(source, error):
                raise
            self._next_source(source, error)
            return
        walk.listing, walk.listing_title = source, self._title(source)
        walk.listed += len(found.names)
        if not walk.listed and not found.following and not self._is_last(source):
            self._next_source(source, None)
            return
        self._check_that_it_ends(found)
        names = found.names
        if source != CATALOG:
            with self.database.read() as session:
                known = reconciliation.known_repositories(session, self.registry.host, names, walk.began)
            names = tuple(name for name in names if name not in known)  # they follow with the rest
        walk.page = found.following or None
        if walk.page is None and source != CATALOG:
            walk.rest, walk.page = True, ""
        self._take(names)

    def _sources(self) -> list[str]:
        """Return where repositories could be listed, best first. Raises RemoteError if there is no such list."""
        walk = self.walk
        with self.database.read() as session:
            chosen = reconciliation.get(session, self.registry.id).list_by
        walk.chosen = chosen is not ListBy.AUTO
        if chosen is ListBy.KNOWN:
            return [KNOWN]
        if chosen is ListBy.CATALOG:
            return [CATALOG]
        own = self._count_request(self._lists.find)
        if chosen is ListBy.AUTO:
            return [*own, CATALOG]
        if not own:
            raise RemoteError(
                f"{self.registry.host} has no list of its own that Dockwarden can read",
                reason="no_own_list",
                hint=f"choose another list: dockwarden registry poll {self.registry.host} --list-by auto",
                retryable=False,
            )
        return own

    def _is_last(self, source: str) -> bool:
        """Whether an administrator chose the list, and there is no other one of the kind."""
        return self.walk.chosen and self.walk.candidates == [source]

    def _page_of(self, client: RegistryClient, source: str) -> Names:
        position = self.walk.page or ""
        if source != CATALOG:
            return self._count_request(lambda: self._lists.page(source, position))
        self._requests += 1
        return client.catalog_page(position)

    def _count_request(self, ask: Callable[[], T]) -> T:
        """Return what an own list says, and count its requests."""
        before = self._lists.requests
        try:
            return ask()
        finally:
            self._requests += self._lists.requests - before

    def _may_leave(self, source: str, error: ScannerError) -> bool:
        """Whether another source is tried after an error. Not if this one listed anything: its repositories would be
        walked twice, and the rest would be missed without a word.
        """
        if self.walk.listed or error.reason == "registry_rate_limited" or self._is_last(source):
            return False
        # Docker Hub, GHCR and others have no catalogue, or show it to administrators only.
        return source != CATALOG or isinstance(error, NotFoundError) or not error.retryable

    def _next_source(self, source: str, error: ScannerError | None) -> None:
        walk = self.walk
        title = self._title(source)
        walk.candidates = (walk.candidates or [])[1:] or [KNOWN]
        walk.listing, walk.page, walk.pages, walk.last_page = "", "", 0, ""
        if walk.candidates == [KNOWN]:
            walk.listing, walk.listing_title = KNOWN, _TITLES[KNOWN]
        if source == CATALOG:
            return
        reason = f"{error}" if error is not None else "it lists no repository"
        walk.listing_note = clean_text(f"{title} is not used: {reason}", 300)
        if error is not None and error.reason not in _NOT_OFFERED:
            walk.note_problem(walk.listing_note)

    def _title(self, source: str) -> str:
        return _TITLES.get(source) or catalog.listings()[source].title

    def _check_that_it_ends(self, found: Names) -> None:
        """Raises RemoteError for a list that repeats a page, or has too many."""
        walk = self.walk
        walk.pages += 1
        page = hashlib.sha256("\n".join(found.names).encode()).hexdigest()[:32] if found.names else ""
        if walk.pages > _PAGES_MOST or (page and page == walk.last_page):
            raise RemoteError(f"{walk.listing_title} does not end", reason="registry_list_unusable", retryable=False)
        walk.last_page = page or walk.last_page

    def _read_known(self) -> None:
        """Read a page of the repositories that the tag ledger has: after an own list, those from before the job."""
        walk = self.walk
        before = walk.began if walk.rest else None
        with self.database.read() as session:
            names = reconciliation.repositories(session, self.registry.host, walk.page or "", 100, before)
        self._take(names)
        walk.page = names[-1] if len(names) == 100 and walk.page is not None else None

    def _take(self, names: tuple[str, ...]) -> None:
        """Keep the repositories that are selected."""
        walk = self.walk
        for name in names:
            if not is_repository(self.registry.host, name):
                walk.note_problem(f"the registry lists an invalid repository: {name[:100]!r}")
            elif self.selects(name):
                if walk.counts.get("repositories", 0) >= _REPOSITORIES_MOST:
                    walk.note_problem(f"stopped after {_REPOSITORIES_MOST} repositories: select fewer with patterns")
                    walk.page = None
                    return
                walk.count("repositories")
                walk.repositories.append(name)

    def selects(self, name: str) -> bool:
        """Whether the patterns select a repository."""
        included = not self.walk.include or glob.matches(self.walk.include, name)
        return included and not glob.matches(self.walk.exclude, name)

    def _read_tags(self, client: RegistryClient) -> None:
        walk = self.walk
        self._requests += 1
        try:
            found = client.tags_page(walk.repository, walk.tags_page or "")
        except (NotFoundError, RemoteError) as error:
            refused = isinstance(error, RemoteError)
            if refused and not (walk.rest and error.reason == "registry_auth_refused"):
                raise
            walk.tags_page = None  # deleted meanwhile, or without tags
            if walk.rest:
                # The registry neither lists nor shows it: many refuse what is deleted, so that nobody can tell.
                walk.count("repositories", -1)
                walk.count("unlisted")
            return
        names = [name for name in found.names if self._is_tag(name)]
        if len(names) < len(found.names):
            walk.note_problem(f"{walk.repository}: the registry lists invalid tags")
        walk.count("tags", len(names))
        walk.tags_page = found.following or None
        if walk.counts["tags"] > _TAGS_MOST:
            walk.note_problem(f"stopped after {_TAGS_MOST} tags: select fewer repositories with patterns")
            walk.page, walk.tags_page, walk.repositories = None, None, []
            return
        self.listed(names)

    def _is_tag(self, tag: str) -> bool:
        try:
            return Reference.parse(f"{self.registry.host}/x:{tag}").tag == tag
        except UsageError:
            return False

    def listed(self, names: list[str]) -> None:
        """Process a page of tags of the current repository."""
        self.walk.tags.extend(names)

    def _look_at(self, client: RegistryClient, tag: str) -> None:
        walk, now = self.walk, time.time()
        reference = Reference(self.registry.host, walk.repository, tag)
        if self._ledger[0] != walk.repository or tag not in self._ledger[1]:
            with self.database.read() as session:
                current = tags.current(session, reference.name, walk.tags)
            self._ledger = (walk.repository, {name: current.get(name, "") for name in walk.tags})
        known = self._ledger[1][tag]
        self._requests += 1
        try:
            digest = client.tag_digest(reference, Digest(known) if known else None)
        except NotFoundError:  # deleted meanwhile
            walk.count("tags", -1)
            return
        self.looked_at(tag, digest, known, now)

    def looked_at(self, tag: str, digest: Digest, known: str, now: float) -> None:
        """Process what a tag names now. ``known``: what the ledger says; empty: nothing."""
        raise NotImplementedError

    def progress(self) -> Progress:
        """The progress that pages show."""
        raise NotImplementedError

    def _end(self, pause: float) -> None:
        """Commit the slice. The next one starts in ``pause`` seconds."""
        raise NotImplementedError

    def _request(
        self, session: Connection, name: str, tag: str, digest: str, lane: Lane, source: str
    ) -> tuple[str, str]:
        """Queue a scan. Returns its id and project. ``name``: host/repository."""
        project = projects.owner(session, name)
        asked = ScanRequest(
            target=f"{name}:{tag}@{digest}",
            lane=lane,
            engine=projects.engine_of(session, project) or self.settings.engine,
            project=project,
            requested_by=f"{source} of {self.registry.host}",
            source=source,
        )
        return scans.request(session, asked).scan_id, project


class _Poll(_Slice):
    """Finds pushes that nothing announced."""

    def run(self) -> None:
        """See `_Slice.run`."""
        walk = self.walk
        if not walk.phase:
            with self.database.read() as session:
                view = reconciliation.get(session, self.registry.id)
                walk.began = epoch(session)
            walk.phase, walk.include, walk.exclude = "polling", list(view.include), list(view.exclude)
            requests = (view.last or {}).get("requests", 0)
            # Half of the interval: a registry that answers slowly is still done before the next poll.
            walk.spread = max(_FASTEST, min(view.seconds / 2 / requests, 5.0)) if requests else 0.2
        if walk.now:
            walk.spread = _FASTEST
        super().run()

    def looked_at(self, tag: str, digest: Digest, known: str, now: float) -> None:
        """See `_Slice.looked_at`."""
        if digest != known:
            self.walk.seen.append([self.walk.repository, tag, str(digest), now])

    def progress(self) -> Progress:
        """See `_Slice.progress`."""
        done = self.walk.counts.get("tags", 0) - len(self.walk.tags)
        return Progress(Stage.FETCH, f"polling {self.walk.repository or self.registry.host}", done)

    def _end(self, pause: float) -> None:
        walk = self.walk
        ripe = time.time() - _GRACE_SECONDS
        if walk.ended and walk.seen:
            pause = max([pause, *(seen[3] - ripe for seen in walk.seen)])

        def commit(session: Connection) -> None:
            trial = Walk.of({**asdict(walk)})
            judged = [seen for seen in trial.seen if seen[3] <= ripe]
            trial.seen = [seen for seen in trial.seen if seen[3] > ripe]
            for repository, tag, digest, _ in judged:
                self._judge(session, trial, repository, tag, digest)
            late = epoch(session) - trial.began > _POLL_SECONDS_MOST
            if late and not trial.ended:
                trial.note_problem("stopped after 24 hours: select fewer repositories with patterns")
            if (trial.ended or late) and not trial.seen:
                jobs.keep(session, self.job, asdict(trial))
                reconciliation.record_poll(
                    session, self.registry.id, trial.counts, trial.problems, trial.complete, listed_by(asdict(trial))
                )
                jobs.finish(session, self.job, summary(trial.counts))
            else:
                jobs.rest(session, self.job, asdict(trial), pause, self.progress())

        self.database.transact(commit)

    def _judge(self, session: Connection, walk: Walk, repository: str, tag: str, digest: str) -> None:
        """Queue a scan for a tag that names a new digest, unless something announced it."""
        name = f"{self.registry.host}/{repository}"
        before = tags.current(session, name, [tag]).get(tag, "")
        if before == digest:
            return
        known = reconciliation.known_scan(session, name, tag, digest)
        if known is not None:
            if known.state.terminal:  # it failed, or it is not an image: the ledger learns it from nobody else
                tags.note(session, name, tag, digest, known.source)
            return
        poll = reconciliation.get(session, self.registry.id)
        webhook = reconciliation.webhook_of(session, self.registry.id, name)
        kind = FoundKind.LOST if webhook else FoundKind.UNANNOUNCED
        if not before and not poll.baseline_at and not reconciliation.was_announced(session, name):
            kind, webhook = FoundKind.FIRST, None
        if kind is FoundKind.FIRST and walk.counts.get("first", 0) >= _FIRST_MOST:
            walk.count("left")
            tags.note(session, name, tag, digest, "poll")
            return
        lane = Lane.BACKGROUND if kind is FoundKind.FIRST else Lane.PUSH
        scan_id, project = self._request(session, name, tag, digest, lane, "poll")
        former = tags.note(session, name, tag, digest, "poll")
        if former:
            base_watch.note_moved(session, name, tag)
            outbox.add(session, [image_events.tag_moved(name, tag, digest, former, project)])
        walk.count(kind.value)
        reconciliation.add(
            session,
            self.registry.id,
            self.job.id,
            kind,
            (name, tag, digest),
            former=former,
            webhook_id=webhook,
            scan_id=scan_id,
        )


def _number(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def _extent(counts: Mapping[str, int], tags_name: str) -> str:
    repositories = _number(counts.get("repositories", 0), "repository", "repositories")
    return f"{_number(counts.get(tags_name, 0), 'tag')} in {repositories}"


def summary(counts: Mapping[str, int]) -> str:
    """Return the result of a poll for people."""
    labels = {
        "lost": ("lost push", "lost pushes"),
        "unannounced": ("new push", "new pushes"),
        "first": ("tag seen for the first time", "tags seen for the first time"),
        "left": ("older tag not scanned: import the registry", "older tags not scanned: import the registry"),
        "unlisted": (
            "former repository not shown by the registry",
            "former repositories not shown by the registry",
        ),
        "errors": ("error", "errors"),
    }
    parts = [_extent(counts, "tags")]
    parts += [_number(counts[name], *label) for name, label in labels.items() if counts.get(name)]
    return "; ".join(parts)


class _Import(_Slice):
    """Counts the registry's tags, queues scans of those without evidence, and waits for them."""

    def run(self) -> None:
        """See `_Slice.run`."""
        with self.database.read() as session:
            if not self.walk.phase:
                self.walk.phase, self.walk.began = "counting", epoch(session)
            queued, ended, _ = reconciliation.scans_of(session, self.job.id)
        # Only so many scans wait at a time: a cancelled import stops soon, and no scan waits for days.
        if self.walk.phase == "scanning" or queued - ended >= _AHEAD:
            self._end(_AHEAD_PAUSE)
        else:
            super().run()

    def listed(self, names: list[str]) -> None:
        """See `_Slice.listed`. While counting, tags are not asked for their digests."""
        if self.walk.phase != "counting":
            super().listed(names)
            return
        with self.database.read() as session:
            known = reconciliation.count_scanned(session, f"{self.registry.host}/{self.walk.repository}", names)
        self.walk.count("total", len(names))
        self.walk.count("known", known)

    def looked_at(self, tag: str, digest: Digest, known: str, now: float) -> None:
        """See `_Slice.looked_at`."""
        self.walk.seen.append([self.walk.repository, tag, str(digest), now])

    def progress(self) -> Progress:
        """See `_Slice.progress`."""
        counts, walk = self.walk.counts, self.walk
        done = counts.get("tags", 0) - len(walk.tags)
        return Progress(Stage.FETCH, walk.phase, done, 0 if walk.phase == "counting" else counts.get("total", 0))

    def _end(self, pause: float) -> None:
        walk = self.walk

        def commit(session: Connection) -> None:
            trial = Walk.of({**asdict(walk)})
            for repository, tag, digest, _ in trial.seen:
                self._queue(session, trial, repository, tag, digest)
            trial.seen = []
            if trial.ended and trial.phase == "counting":
                if trial.dry_run:
                    jobs.keep(session, self.job, asdict(trial))
                    jobs.finish(session, self.job, count_text(trial.counts))
                    return
                trial.restart("queueing")
                trial.counts["known"] = 0  # counted again, by digest
            elif trial.ended:
                trial.phase = "scanning"
                trial.counts["total"] = trial.counts.get("tags", 0)
            queued, ended, failed = reconciliation.scans_of(session, self.job.id)
            if trial.phase == "scanning" and queued == ended:
                jobs.keep(session, self.job, asdict(trial))
                jobs.finish(session, self.job, import_text(trial.counts, queued, failed))
                return
            jobs.rest(session, self.job, asdict(trial), pause, self.progress())

        self.database.transact(commit)

    def _queue(self, session: Connection, walk: Walk, repository: str, tag: str, digest: str) -> None:
        name = f"{self.registry.host}/{repository}"
        known = reconciliation.known_scan(session, name, tag, digest)
        pending = known is not None and (not known.state.terminal or known.state is ScanState.DONE)
        if pending or reconciliation.is_listed(session, name, tag, digest):
            walk.count("known")
            return
        scan_id, _ = self._request(session, name, tag, digest, Lane.BACKGROUND, "import")
        reconciliation.add(
            session, self.registry.id, self.job.id, FoundKind.IMPORT, (name, tag, digest), scan_id=scan_id
        )


def count_text(counts: Mapping[str, int]) -> str:
    """Return the result of a count for people."""
    return f"{_extent(counts, 'total')}; {counts.get('known', 0)} scanned before" + _errors(counts)


def import_text(counts: Mapping[str, int], queued: int, failed: int) -> str:
    """Return the result of an import for people."""
    text = f"{_extent(counts, 'total')}; {queued} scanned" + (f", {failed} of them failed" if failed else "")
    return text + (f"; {counts['known']} scanned before" if counts.get("known") else "") + _errors(counts)


def _errors(counts: Mapping[str, int]) -> str:
    return f"; {_number(counts['errors'], 'error')}" if counts.get("errors") else ""
