"""Sentences for reasons. Programs read the slug in JSON, CSV and exit messages; pages and tables print ``sentence``."""

from __future__ import annotations

_SENTENCES = {
    "advisories_expired": "The advisory database is older than the limit.",
    "advisories_stale": "The advisory database is older than the policy allows.",
    "base_contradicted": "The declared base does not match the layers.",
    "base_unknown": "The base image is unknown.",
    "broker_unreachable": "The broker does not answer.",
    "check_failed": "A check ended with an internal error.",
    "clair_refused": "Clair refused the request.",
    "clair_unavailable": "Clair does not answer.",
    "db_not_at_head": "The database schema does not match this version.",
    "db_unavailable": "The database does not answer.",
    "encrypted": "A layer is encrypted.",
    "engine_db_unavailable": "There is no advisory database.",
    "engine_misconfigured": "The engine is misconfigured.",
    "engine_missing": "The engine is not installed.",
    "engine_revoked": "The engine or its database is revoked.",
    "exploitation_stale": "The KEV or EPSS feed is too old.",
    "exploitation_unknown": "The KEV or EPSS feed was never imported.",
    "file_unread": "A file could not be read.",
    "history_absent": "The image has no build history.",
    "history_not_understood": "The build history could not be read.",
    "image_unknown": "The image was not scanned.",
    "invariant_broken": "The nightly database check found rows that contradict each other.",
    "layers_unreadable": "A layer could not be read.",
    "limit_exceeded": "A limit was exceeded.",
    "newer_base_unknown": "It is unknown whether the base is up to date.",
    "no_advisories": "The engine has no advisories for this release or package type.",
    "no_answer": "The registry does not answer.",
    "no_handshake": "The TLS handshake failed.",
    "no_such_check": "The policy names an unknown check.",
    "no_such_engine": "The configured engine does not exist.",
    "not_an_image": "This is not an image.",
    "not_examined": "A check has no result.",
    "not_probed": "The registry was not checked.",
    "not_scanned": "The image was not scanned.",
    "nothing_to_scan": "There was no package to look up.",
    "package_db_deleted": "A layer deletes the package database.",
    "package_db_indirect": "The package database is behind a link.",
    "posture_stale": "The last check of the registry is too old.",
    "probe_timeout": "The registry check timed out.",
    "program_unread": "The engine could not read the packages of a program.",
    "release_disagrees": "The release of the operating system is contradictory.",
    "scan_timeout": "The scan took too long.",
    "scanner_crashed": "The engine crashed.",
    "scanner_failed": "The engine failed.",
    "scanner_oom": "The engine ran out of memory.",
    "scanner_output_invalid": "The engine's output is invalid.",
    "unclear_answer": "The registry's response is unclear.",
    "unsupported_os": "The operating system is not supported.",
}


def sentence(reason: str) -> str:
    """Return the sentence for a reason, or its slug as words."""
    return _SENTENCES.get(reason) or f"{reason.replace('_', ' ').capitalize()}."
