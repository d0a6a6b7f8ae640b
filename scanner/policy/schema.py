"""The JSON Schema of a policy document, for editors: completion, help and checks while one types.

It is made of the models that parse policies, so it cannot differ from them. The server's validation finds more: unknown
signers, expressions that do not compile, rules with two selectors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from scanner.model.finding import STATUSES
from scanner.policy.document import document_schema
from scanner.policy.rules import KnownNames

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DURATION = r"^[0-9]{1,6}[smhdw]$"

# By model and field. Short: an editor shows it beside the caret.
HELP: Mapping[str, str] = {
    "Policy.apiVersion": "The version of this format: dockwarden/v1.",
    "Policy.kind": "Policy.",
    "Policy.metadata": "Name and description.",
    "Policy.match": "What the policy applies to. Without it: every image in every environment.",
    "Policy.incomplete": "What happens if something could not be examined, unless a rule sets its own.",
    "Policy.advisories": "How old the vulnerability database may be.",
    "Policy.signatures": "How old the result of a signature check may be.",
    "Policy.posture": "How old the examination of the image's registry may be.",
    "Policy.evidence": "How long ago the image may have been examined.",
    "Policy.attached_sboms": "Whether SBOMs attached to the image are used.",
    "Policy.tags": "Tags that must keep naming the image that they named first.",
    "Policy.rules": "At least one rule. The strictest action of the violated rules is the verdict.",
    "Metadata.name": "Lower case, up to 64 characters. It cannot be changed later.",
    "Metadata.description": "What the policy is for. Shown in lists.",
    "Match.images": "Globs over host/repository: * within one part, ** any number of parts.",
    "Match.environments": "Environments of gate requests and workloads. Empty: all.",
    "Advisories.max_age": "With older advisories the result is unknown. A number and s, m, h, d or w. Default 168h.",
    "Posture.max_age": "An older examination counts as unknown. Default 168h.",
    "Evidence.max_age": "An image that was examined longer ago counts as unknown and is scanned again.",
    "Signatures.max_age": "An older result of a signature check counts as unknown. Default 24h.",
    "AttachedSboms.accept": "true: packages in attached SBOMs count too. Default false.",
    "Tags.immutable": 'Patterns of tags that must not move, for example "v*".',
    "Tags.action": "What happens if such a tag was moved. Default deny.",
    "Rule.id": "Name of the rule: lower case, unique in the policy. Reports and exemptions use it.",
    "Rule.action": "deny: refuse the image. warn: allow it and report.",
    "Rule.description": "Why the rule exists. Shown with its violations.",
    "Rule.vulnerability": "Selects vulnerabilities for which every given member holds.",
    "Rule.check": "One check or a list, by id: dockwarden checks lists them.",
    "Rule.tag": "All checks with this tag.",
    "Rule.benchmark": "All checks of a benchmark's item, such as cis-docker-1.6/4.1.",
    "Rule.parameters": "Parameters of the selected checks.",
    "Rule.signature": "Requires signatures or attestations.",
    "Rule.when": "A CEL expression over image and counts. The rule is violated if it is true.",
    "Rule.grace": "Time to fix a vulnerability before the rule applies, such as 72h. It warns until then.",
    "Rule.incomplete": "What happens if this rule could not be evaluated.",
    "VulnerabilitySelector.severity": "One or more severities. An unknown severity counts as critical.",
    "VulnerabilitySelector.fixable": "true: only with a fixed version. false: only without.",
    "VulnerabilitySelector.known_exploited": "true: only those in CISA's catalogue of known exploited vulnerabilities.",
    "VulnerabilitySelector.epss": "Only with at least this probability of exploitation within 30 days, 0 to 1.",
    "VulnerabilitySelector.cvss": "Only with at least this CVSS base score, 0 to 10.",
    "VulnerabilitySelector.ids": "Only these vulnerabilities, by id or alias.",
    "VulnerabilitySelector.packages": "Only packages whose name matches one of these globs.",
    "VulnerabilitySelector.types": "Only packages of these types, such as deb, rpm, pypi, npm.",
    "VulnerabilitySelector.status": "Only with one of these statuses of the distribution.",
    "VulnerabilitySelector.engines": "Whose result counts if several engines scanned: any, all, or an engine.",
    "SignatureSelector.scheme": "One or more signature schemes.",
    "SignatureSelector.signers": "Accepted signers, by their name in the trust roots.",
    "SignatureSelector.keys": "Accepted keys, by fingerprint.",
    "SignatureSelector.identities": "Accepted identities of certificates.",
    "SignatureSelector.require": "How many of them must have signed: any, all, or a number.",
    "SignatureSelector.attestation": "Requires an attestation with this predicate type instead of a signature.",
    "SignatureSelector.fields": "Accepted values in the attestation's predicate, by path.",
}


@lru_cache(maxsize=4)
def _cached_schema(known: KnownNames, titles: tuple[tuple[str, str], ...], signers: tuple[str, ...]) -> dict[str, Any]:
    schema: dict[str, Any] = copy.deepcopy(document_schema())
    definitions: dict[str, Any] = schema["$defs"]
    for name, model in (("Policy", schema), *((name.lstrip("_"), each) for name, each in definitions.items())):
        for field, member in model.get("properties", {}).items():
            member.pop("title", None)
            if text := HELP.get(f"{name}.{field}"):
                member["description"] = text
            model["properties"][field] = _accepted_forms(member)
    rule = definitions["Rule"]["properties"]
    described = dict(titles)
    rule["check"] = _choices(rule["check"], [*known.checks, *sorted(_benchmarks(known))], described)
    rule["tag"] = _choices(rule["tag"], sorted({tag for check in known.checks.values() for tag in check.tags}))
    rule["benchmark"] = _choices(rule["benchmark"], sorted(_benchmarks(known)))
    flaws = definitions["VulnerabilitySelector"]["properties"]
    flaws["engines"]["enum"] = ["any", "all", *sorted(known.engines)]
    flaws["status"] = _choices(flaws["status"], sorted(STATUSES))
    signature = definitions["SignatureSelector"]["properties"]
    signature["scheme"] = _choices(signature["scheme"], sorted(known.schemes))
    # Names of signers are examples: a name that is not a trust root's yet is refused with its line by the validation.
    signature["signers"]["examples"] = list(signers)
    definitions["Rule"]["oneOf"] = [
        {"required": ["vulnerability"]},
        {"anyOf": [{"required": [name]} for name in ("check", "tag", "benchmark")]},
        {"required": ["signature"]},
        {"required": ["when"]},
    ]
    schema |= {"$schema": DIALECT, "title": "Dockwarden policy", "description": "What may be shipped, by rules."}
    return schema


def policy_schema(known: KnownNames, titles: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON Schema of policies with this installation's checks, schemes, engines and signers.

    ``titles``: by check id. The result is shared: do not change it.
    """
    signers = {name for names in (known.signers or {}).values() for name in names or ()}
    return _cached_schema(known, tuple(sorted(titles.items())), tuple(sorted(signers)))


def _benchmarks(known: KnownNames) -> set[str]:
    return {name for check in known.checks.values() for name in check.benchmarks}


def _accepted_forms(member: dict[str, Any]) -> dict[str, Any]:
    """Describe what the parser accepts: a duration as ``72h``, one text for a list of one; no null."""
    options = [each for each in member.pop("anyOf", []) if each.get("type") != "null"]
    if len(options) == 1:
        member = {**options[0], **member}
    elif options:
        member["anyOf"] = options
    if member.get("default", 0) is None:
        del member["default"]
    if member.get("format") == "duration":
        member = {key: value for key, value in member.items() if key not in ("format", "default")}
        member["pattern"] = _DURATION
    items = member.get("items", {})
    if member.get("type") == "array" and (items.get("type") == "string" or items.get("$ref") == "#/$defs/Severity"):
        shared: dict[str, Any] = {key: member[key] for key in ("description", "default") if key in member}
        plain: dict[str, Any] = {key: value for key, value in member.items() if key not in shared}
        member = {"anyOf": [plain, items], **shared}
    return member


def _choices(member: dict[str, Any], names: Iterable[str], titles: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Replace the items of a list of texts by these names."""
    found = list(names)
    item: dict[str, Any] = {"type": "string", "enum": found}
    if titles:
        item["enumDescriptions"] = [titles.get(name, "") for name in found]
    return {**member, "anyOf": [{"type": "array", "items": item}, item]}
