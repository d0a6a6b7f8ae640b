"""Dry runs of a policy on a server: start one, follow it, read what would change, and format it for a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from typing import Any
from urllib.parse import quote

from scanner.commands._client import Client, objects
from scanner.errors import RemoteError
from scanner.model.plurals import number_of
from scanner.model.untrusted import clean_text

_LOOK_SECONDS = 1.0
_UNCLAIMED_SECONDS = 15.0  # a dry run that is queued for longer: no worker seems to run
_ALL = 1_000_000_000
_SHARE = ("known", "matching", "examined", "skipped", "later", "unscanned", "unchanged")

Tell = Callable[[str], None]


def page_by_page(client: Client, name: str, text: str, most: int, tell: Tell) -> dict[str, Any]:
    """Simulate without a job: the most recently scanned images and the worst workloads, ``most`` of each."""
    found = client.simulate(name, text, most=most, progress=tell)
    found["workloads"] = running = client.simulate_workloads(name, text, most=most, progress=tell)
    return found | {"complete": not found["truncated"] and not running["truncated"]}


def run_to_end(client: Client, name: str, text: str, as_of: date | None, wait: int, tell: Tell) -> dict[str, Any]:
    """Run a dry run on the server and return what would change, with the share that was examined.

    ``complete`` is false if the wait ended first. Raises RemoteError if the dry run failed or was cancelled.
    """
    body: dict[str, Any] = {"text": text} | ({"as_of": as_of.isoformat()} if as_of else {})
    _, run = client.post(f"/api/v1/policies/{quote(name, safe='')}/dry-runs", body)
    path = f"/api/v1/dry-runs/{quote(str(run.get('id')), safe='')}"
    began, last_line = time.monotonic(), ""
    while run.get("state") in ("queued", "running", "retry_wait"):
        waited = time.monotonic() - began
        # A small installation may have no worker at this moment. The pages of the API give the same answer, only
        # slower; a past day can only be examined by the job.
        if run.get("state") == "queued" and waited > _UNCLAIMED_SECONDS and not as_of:
            tell("no worker of the server has started the dry run: asking page by page instead")
            client.post(f"{path}/cancel", {})
            return page_by_page(client, name, text, _ALL, tell)
        if waited > wait:
            return {"id": str(run.get("id")), "complete": False}
        time.sleep(_LOOK_SECONDS)
        run = client.get(path, {})
        last_line = _progress(run, last_line, tell)
    if run.get("state") != "done":
        message = clean_text(str(run.get("message") or run.get("state")), 300)
        raise RemoteError(f"the dry run did not finish: {message}", reason="dry_run_failed", hint="start it again")
    return _changes(client, path, run)


def _progress(run: Mapping[str, Any], last_line: str, tell: Tell) -> str:
    """Tell the share examined if it has changed since ``last_line``. Returns the current line."""
    line = "; ".join(_shares(run))
    if line and line != last_line:
        tell(line)
    return line


def _changes(client: Client, path: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Read all changes, in the shape of a simulation."""
    parts: dict[str, dict[str, Any]] = {}
    for subject, member in (("image", "images"), ("workload", "workloads")):
        share = run.get(member)
        parts[subject] = {key: share.get(key) for key in _SHARE} if isinstance(share, dict) else {}
        parts[subject] |= {"newly_denied": [], "newly_released": [], "truncated": False}
    for page in client.pages(f"{path}/changes", {}, _ALL):
        for change in objects(page.get("items")):
            part = parts["workload" if change.get("subject") == "workload" else "image"]
            part["newly_released" if change.get("change") == "released" else "newly_denied"].append(_flip(change))
    more = {key: run.get(key) for key in ("id", "as_of", "groups")}
    return {**parts["image"], "workloads": parts["workload"], **more, "complete": True}


def _flip(change: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: change.get(key) for key in ("project", "environment", "before", "after", "rules", "reasons")}
    if change.get("subject") == "workload":
        return {"workload": change.get("name"), "id": change.get("workload"), **own}
    return {"image": change.get("name"), "digest": change.get("digest"), **own}


def _shares(run: Mapping[str, Any]) -> list[str]:
    """How much was examined, as sentences."""
    lines = []
    for member, what in (("images", "image"), ("workloads", "running workload")):
        share = run.get(member)
        if not isinstance(share, dict) or share.get("matching") is None:
            continue
        line = f"{_number(share, 'examined')} of {number_of(_number(share, 'matching'), what)} examined"
        others = _number(share, "known") - _number(share, "matching")
        line += f", the policy does not apply to {number_of(others, 'other')}" if others > 0 else ""
        for key, text in (
            ("skipped", "could not be examined: their evidence was removed"),
            ("later", "had no evidence yet on that day"),
            ("unscanned", "run or mount an image that was never scanned"),
        ):
            line += f"; {_number(share, key)} {text}" if _number(share, key) else ""
        lines.append(line)
    return lines


def _number(share: Mapping[str, Any], key: str) -> int:
    value = share.get(key)
    return value if isinstance(value, int) else 0


def describe(found: Mapping[str, Any]) -> str:
    """Format a simulation for a terminal: the share that was examined, counts by rule and project, each change."""
    running = found.get("workloads")
    lines = []
    if "matching" in found:
        when = str(found.get("as_of") or "")[:10]
        lines += [f"As of {clean_text(when, 10)}, with the evidence and policies of that day:"] if when else []
        lines += _shares({"images": found, "workloads": running})
    groups = objects(found.get("groups"))
    if groups:
        lines.append("")
        lines.append(f"{'RULE':<32} {'PROJECT':<20} {'DENIED':>8} {'RELEASED':>9}")
        for group in groups:
            rule, project = (clean_text(str(group.get(key) or "-"), 60) for key in ("rule", "project"))
            counts = f"{_number(group, 'newly_denied'):>8} {_number(group, 'newly_released'):>9}"
            lines.append(f"{rule:<32} {project:<20} {counts}")
    if lines:
        lines.append("")
    lines.append(_flips(found, "image", "image"))
    if isinstance(running, dict) and running.get("examined"):
        lines.append(_flips(running, "workload", "running workload"))
    return "\n".join(lines)


def _flips(found: Mapping[str, Any], subject: str, what: str) -> str:
    shown = partial(clean_text, limit=300)
    lines = []
    for member, word in (("newly_denied", "NEWLY DENIED"), ("newly_released", "NEWLY RELEASED")):
        flips = objects(found.get(member))
        # Everything in the answer may come from an image or a policy text: strip terminal control sequences.
        lines.append(f"{word}  {number_of(len(flips), what)}")
        for flip in flips:
            image, project, environment = (
                shown(str(flip.get(name, ""))) for name in (subject, "project", "environment")
            )
            rules = flip.get("rules")
            named = ", ".join(shown(str(rule)) for rule in rules) if isinstance(rules, list) else ""
            where = f" in {environment}" if environment else ""
            lines.append(f"  {image}{where}  (project {project}) by {named or '-'}")
            reasons = flip.get("reasons")
            lines += [f"      {shown(str(reason))}" for reason in (reasons if isinstance(reasons, list) else [])[:3]]
    more = f"; not all {what}s were simulated (raise --most)" if found.get("truncated") else ""
    unchanged, examined = (
        number_of(_number(found, "unchanged"), "decision"),
        number_of(_number(found, "examined"), what),
    )
    lines.append(f"{unchanged} would not change, of {examined}{more}")
    return "\n".join(lines)
