"""Sentences for reasons. Programs read the slug in JSON, CSV and exit messages; pages and tables print ``sentence``
and ``advice``."""

from __future__ import annotations

_SENTENCES = {
    "advisories_expired": "The advisory database is older than the limit.",
    "advisories_stale": "The advisory database is older than the policy allows.",
    "base_contradicted": "The declared base does not match the layers.",
    "base_incomplete": "The newest base was not examined completely, so more findings may come.",
    "base_not_scanned": "The newest base could not be scanned.",
    "base_unknown": "The base image is unknown.",
    "broker_unreachable": "The broker does not answer.",
    "check_failed": "A check ended with an internal error.",
    "clair_refused": "Clair refused the request.",
    "clair_unavailable": "Clair does not answer.",
    "db_busy": "The database is busy or locked.",
    "db_cannot_open": "The database file cannot be opened.",
    "db_conflict": "The transaction conflicted with others repeatedly.",
    "db_damaged": "The database file is damaged.",
    "db_disk_error": "The disk of the database reports an error.",
    "db_missing": "The database server has no such database.",
    "db_not_a_database": "The database file is not an SQLite database.",
    "db_not_at_head": "The database schema does not match this version.",
    "db_read_only": "The database cannot be written to.",
    "db_refused": "The database refuses the user, the password or the host.",
    "db_unavailable": "The database does not answer.",
    "disk_full": "The disk is full.",
    "encrypted": "A layer is encrypted.",
    "engine_db_unavailable": "There is no advisory database.",
    "engine_misconfigured": "The engine is misconfigured.",
    "engine_missing": "The engine is not installed.",
    "engine_revoked": "The engine or its database is revoked.",
    "exploitation_stale": "The KEV or EPSS feed is too old.",
    "exploitation_unknown": "The KEV or EPSS feed was never imported.",
    "file_unread": "A file could not be read.",
    "former_base_unknown": "The base that images were built on was not scanned.",
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
    "not_searched": "Large files were not searched for secrets.",
    "nothing_to_scan": "There was no package to look up.",
    "package_db_deleted": "A layer deletes the package database.",
    "package_db_indirect": "The package database is behind a link.",
    "platform_missing": "The newest base has no image for the platform of the images.",
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

_UPDATE = "Update the advisory database: dockwarden advisories update"
_FEEDS = "Import the KEV and EPSS feeds: dockwarden advisories update"
_RESCAN = "Scan the image again"
_ENGINE = "Check the engine's settings and its log, then scan again"
_ADVICE = {
    "advisories_expired": _UPDATE,
    "advisories_stale": _UPDATE,
    "engine_db_unavailable": _UPDATE,
    "no_advisories": "Use an engine with advisories for this release, or build on a supported base",
    "unsupported_os": "Use an engine that supports this operating system, or build on a supported base",
    "release_disagrees": "Make /etc/os-release and the distribution's release files agree",
    "exploitation_stale": _FEEDS,
    "exploitation_unknown": _FEEDS,
    "nothing_to_scan": "Keep the package database in the image, or attach a signed SBOM",
    "package_db_deleted": "Keep the package database in the image, or attach a signed SBOM",
    "package_db_indirect": "Make the package database a regular file",
    "program_unread": "Build the program with its module information, or attach a signed SBOM",
    "history_absent": "Build the image with its history, or attach a signed SBOM",
    "history_not_understood": "Write the named step in a form that Dockwarden can read, or request an exemption",
    "image_unknown": _RESCAN,
    "not_scanned": _RESCAN,
    "not_examined": _RESCAN,
    "check_failed": _RESCAN,
    "engine_missing": "Install the engine, or choose another with DOCKWARDEN_ENGINE",
    "no_such_engine": "Choose an installed engine with DOCKWARDEN_ENGINE",
    "engine_misconfigured": _ENGINE,
    "engine_revoked": "Install a version of the engine that is not revoked",
    "scanner_crashed": _ENGINE,
    "scanner_failed": _ENGINE,
    "scanner_output_invalid": _ENGINE,
    "scanner_oom": "Give the worker more memory, then scan again",
    "scan_timeout": "Raise the time limit of the engine, then scan again",
    "limit_exceeded": "Make the image smaller, or raise the limit (docs/settings.md)",
    "clair_refused": "Check Clair's log, then scan again",
    "clair_unavailable": "Start Clair or correct its address, then scan again",
    "encrypted": "Push the image without encrypted layers",
    "file_unread": "Repair the named file, then build the image again",
    "layers_unreadable": "Push the image again",
    "not_probed": "Check the registry: dockwarden registry check",
    "posture_stale": "Check the registry: dockwarden registry check",
    "no_answer": "Make the registry reachable from the worker, then scan again",
    "no_such_check": "Correct the name of the check in the policy",
}


def advice(reason: str) -> str:
    """Return what a user can do about evidence that is missing for this reason. It has no full stop."""
    return _ADVICE.get(reason) or f"Find the cause: {sentence(reason)[:1].lower()}{sentence(reason)[1:].rstrip('.')}"


def sentence(reason: str) -> str:
    """Return the sentence for a reason, or its slug as words."""
    return _SENTENCES.get(reason) or f"{reason.replace('_', ' ').capitalize()}."
