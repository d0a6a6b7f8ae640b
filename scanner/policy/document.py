"""The YAML form of a policy: its models, and errors by line and column. ``scanner.policy.rules`` has what it means.

Only a new text is parsed: a scan with a known policy imports neither the YAML reader nor the models.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.reader import ReaderError

from scanner.errors import UsageError
from scanner.model import glob
from scanner.model.decision import Verdict
from scanner.model.finding import STATUSES, Severity
from scanner.model.untrusted import nesting_depth
from scanner.model.validation import plain_message
from scanner.patterns import lazy
from scanner.policy import expressions
from scanner.policy import rules as plain
from scanner.policy.rules import KnownNames, PolicyError, Problem, as_tuple, selected_checks

# Bytes, depth of the document, depth of brackets: ruamel.yaml recurses, so deep input exhausts the stack.
_MAX_TEXT, _MAX_DEPTH, _MAX_NESTING = 256 << 10, 20, 64
# 72h, 30d
_DURATION = lazy(r"([0-9]{1,6})(s|m|h|d|w)")
_LONGEST = timedelta(weeks=52_000)  # a thousand years; dates begin in the year 1
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LARGEST = 1e15  # of parameters: checks multiply them
_ID = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def _duration(value: Any) -> timedelta:
    """``72h``, ``7d``: a whole number and s, m, h, d or w."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration: write a number and s, m, h, d or w, e.g. 72h")
    found = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
    if found > _LONGEST:
        raise ValueError("too long: at most 52000w")
    return found


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # pydantic reads true as 1
    return value


def _scalars(value: Any) -> Any:
    """Convert a field of an attestation to text, with true, false and numbers as in JSON."""
    items = value if isinstance(value, list | tuple) else (value,)
    return tuple(
        str(item).lower() if isinstance(item, bool) else str(item) if isinstance(item, int | float) else item
        for item in items
    )


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]


def _pattern(value: str) -> str:
    if wrong := glob.problem(value):
        raise ValueError(f"{value[:60]!r}: {wrong}")
    return value


Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], BeforeValidator(as_tuple)]
# Requests name environments in lower case only, so a policy for "Production" would never apply.
Environments = Annotated[
    tuple[Annotated[str, AfterValidator(lambda value: value.strip().lower())], ...], BeforeValidator(as_tuple)
]
Severities = Annotated[tuple[Severity, ...], BeforeValidator(as_tuple)]
Action = Literal[Verdict.DENY, Verdict.WARN]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VulnerabilitySelector(_Document):
    """Selects vulnerabilities that match every given member. At least one is required."""

    severity: Severities = ()
    fixable: bool | None = None
    known_exploited: bool | None = None
    epss: Annotated[float | None, BeforeValidator(_number)] = Field(None, ge=0, le=1)
    cvss: Annotated[float | None, BeforeValidator(_number)] = Field(None, ge=0, le=10)
    ids: Texts = ()
    packages: Patterns = ()
    types: Texts = ()
    status: Texts = ()
    engines: str = "any"

    @model_validator(mode="after")
    def _not_empty(self) -> VulnerabilitySelector:
        if not self.model_fields_set - {"engines"}:
            raise ValueError("needs at least one of severity, fixable, known_exploited, epss, cvss, ids or packages")
        return self


class SignatureSelector(_Document):
    """Selects signatures or attestations.

    ``signers``, ``keys`` and ``identities`` are alternatives; ``require`` is how many of them are needed. ``fields``:
    accepted values of an attestation's predicate, by path.
    """

    scheme: Texts = Field(min_length=1)
    signers: Texts = ()
    keys: Texts = ()
    identities: Texts = ()
    require: Literal["any", "all"] | Annotated[int, Field(ge=1, le=50, strict=True)] = "any"
    # A predicate type, in which * matches any text; empty: a signature.
    attestation: Annotated[str, AfterValidator(lambda value: value and _pattern(value))] = Field("", max_length=300)
    fields: dict[str, Annotated[tuple[str, ...], BeforeValidator(_scalars)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sound(self) -> SignatureSelector:
        if self.fields and not self.attestation:
            raise ValueError("fields need an attestation: set its predicate type in 'attestation'")
        wanted = len(self.signers) + len(self.keys) + len(self.identities)
        if isinstance(self.require, int) and 0 < wanted < self.require:
            raise ValueError(f"require: {self.require} of {wanted} cannot be satisfied")
        return self


class Rule(_Document):
    """One rule: exactly one selector, and an action."""

    id: str = Field(pattern=_ID)
    action: Action
    description: str = ""
    vulnerability: VulnerabilitySelector | None = None
    check: Texts | None = None
    tag: Texts = ()
    benchmark: Texts = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    signature: SignatureSelector | None = None
    when: str | None = Field(None, max_length=4096)
    grace: Duration | None = None
    incomplete: Action | None = None

    @model_validator(mode="after")
    def _one_selector(self) -> Rule:
        given = [name for name in ("vulnerability", "signature", "when") if getattr(self, name) is not None]
        if self.check is not None or self.tag or self.benchmark:
            given.append("check")
        if len(given) != 1:
            raise ValueError("needs exactly one of vulnerability, check (or tag, benchmark), signature, when")
        if self.grace is not None and self.vulnerability is None:
            raise ValueError("grace needs a vulnerability selector")
        if self.parameters and "check" not in given:
            raise ValueError("parameters need check, tag or benchmark")
        return self


class _Metadata(_Document):
    name: str = Field(pattern=_ID)
    description: str = Field("", max_length=1000)


class _Match(_Document):
    images: Patterns = Field(("**",), max_length=100)
    environments: Environments = ()


class _Advisories(_Document):
    max_age: Duration = timedelta(hours=168)


class _Posture(_Document):
    max_age: Duration = timedelta(hours=168)


class _Evidence(_Document):
    max_age: Duration | None = None


class _AttachedSboms(_Document):
    accept: StrictBool = False


class _Signatures(_Document):
    max_age: Duration = timedelta(hours=24)


class _Tags(_Document):
    immutable: Patterns = Field((), max_length=100)
    action: Action = Verdict.DENY


class PolicyDocument(_Document):
    apiVersion: Literal["dockwarden/v1"]
    kind: Literal["Policy"]
    metadata: _Metadata
    match: _Match = _Match()
    incomplete: Action = Verdict.DENY
    advisories: _Advisories = _Advisories()
    signatures: _Signatures = _Signatures()
    posture: _Posture = _Posture()
    evidence: _Evidence = _Evidence()
    attached_sboms: _AttachedSboms = _AttachedSboms()
    tags: _Tags = _Tags()
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=500)


def read_document(text: str, name: str, known: KnownNames) -> PolicyDocument:
    """Parse and check a policy (YAML or JSON). Raises PolicyError with line and column of every error."""
    tree = _load(text, name)
    try:
        document = PolicyDocument.model_validate(_plain_value(tree))
    except ValidationError as error:
        found = error.errors(include_url=False)
        # Pydantic drops an invalid rule and then reports too few rules. Report one mistake once.
        inner = any(len(item["loc"]) > 1 and item["loc"][0] == "rules" for item in found)
        reported = [item for item in found if not (inner and item["type"] == "too_short" and item["loc"] == ("rules",))]
        raise PolicyError(name, [_problem(item, tree) for item in reported[:50]]) from None
    problems = [
        *_duplicates(document, tree),
        *_unknown(document, tree, known),
        *_parameters(document, tree, known),
        *_expressions(document, tree),
    ]
    if problems:
        raise PolicyError(name, sorted(problems, key=lambda p: (p.line, p.column)))
    return document


def rule_of(read: Rule) -> plain.Rule:
    """Return a rule as decisions use it."""
    found = dict(vars(read))  # not dict(model): a model with a field "keys" looks like a mapping
    if read.vulnerability is not None:
        found["vulnerability"] = plain.VulnerabilitySelector(**vars(read.vulnerability))
    if read.signature is not None:
        found["signature"] = signatures_of(read.signature)
    return plain.Rule(**found)


def signatures_of(read: SignatureSelector) -> plain.SignatureSelector:
    """Return a selector of signatures as decisions use it."""
    return plain.SignatureSelector(**vars(read))


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema of the models, without the names that an installation knows. See ``policy.schema``."""
    return PolicyDocument.model_json_schema()


def _load(text: str, name: str) -> Any:
    """Parse YAML 1.2 with positions. Refuses tags, duplicate keys, and aliases: ten aliases of ten aliases are a
    gigabyte (the "billion laughs" attack).
    """
    if len(text.encode("utf-8", "replace")) > _MAX_TEXT:
        raise PolicyError(name, [Problem(0, 0, "", f"larger than {_MAX_TEXT >> 10} KiB")])
    if nesting_depth(text.encode("utf-8", "replace")) > _MAX_NESTING:
        raise PolicyError(name, [Problem(0, 0, "", "nested too deep")])
    try:
        # Round-trip mode, because it keeps line and column of every key; PyYAML's fast loader does not.
        reader = YAML(typ="rt")
        reader.Composer = _Composer
        return reader.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = error.problem or "not YAML"
        if message == "but found another document":
            message = "a second document begins here; write each policy into a file of its own"
        raise PolicyError(name, [Problem(where[0], where[1], "", message)]) from None
    except ReaderError as error:
        before = text[: error.position]
        where = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = f"not YAML: the character U+{error.character:04X} is not allowed"
        raise PolicyError(name, [Problem(where[0], where[1], "", message)]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(
            name, [Problem(0, 0, "", f"not YAML: {str(error).splitlines()[0] if str(error) else 'too deep'}")]
        ) from None


class _Composer(Composer):
    """Refuses anchors, aliases and tags where the parser sees one, before anything is expanded.

    A search of the text cannot find them reliably: an apostrophe in a word looks like the beginning of a string.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or event.anchor is not None or event.ctag is not None:
            message = "anchors, aliases and tags are not allowed"
            raise ComposerError(None, None, message, event.start_mark)
        return super().compose_node(parent, index)


def _plain_value(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise UsageError("the policy is nested too deep", reason="invalid_policy")
    if isinstance(value, Mapping):
        return {key: _plain_value(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_value(item, depth + 1) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    # ruamel's scalars are subclasses that carry their position. Pydantic's strict types want the plain ones.
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def _problem(error: Any, tree: Any) -> Problem:
    path = [part for part in error["loc"] if not (isinstance(part, str) and part.startswith(("function-", "literal[")))]
    line, column = position(tree, path)
    message = plain_message(error)
    if error["type"] == "extra_forbidden":
        message += _did_you_mean(str(path[-1]), _fields_at(path))
    if error["type"] == "model_type" and not path:
        message += " with apiVersion, kind, metadata and rules"
    if error["type"] == "too_short":
        message = "needs at least one entry"
    return Problem(line, column, ".".join(map(str, path)), message)


def _fields_at(path: Sequence[Any]) -> Iterable[str]:
    inner: dict[str, type[BaseModel]] = {
        "vulnerability": VulnerabilitySelector,
        "signature": SignatureSelector,
        "metadata": _Metadata,
        "match": _Match,
        "advisories": _Advisories,
        "signatures": _Signatures,
        "posture": _Posture,
        "evidence": _Evidence,
        "attached_sboms": _AttachedSboms,
        "tags": _Tags,
    }
    for part in reversed(path[:-1]):
        if part in inner:
            return inner[part].model_fields
        if isinstance(part, int):
            return Rule.model_fields
    return PolicyDocument.model_fields


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def position(tree: Any, path: Sequence[Any]) -> tuple[int, int]:
    """Return line and column (from 1) of ``path``, or of its nearest existing parent."""
    node, where = tree, (1, 1)
    for part in path:
        if not isinstance(node, CommentedBase):
            break
        try:
            line, column = node.lc.key(part) if isinstance(node, Mapping) else node.lc.item(part)
            node = node[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
        where = (line + 1, column + 1)
    return where


def _duplicates(document: PolicyDocument, tree: Any) -> Iterable[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(document.rules):
        if rule.id in seen:
            yield Problem(*position(tree, ["rules", index, "id"]), f"rules.{index}.id", f"{rule.id!r} is used twice")
        seen.add(rule.id)


def _unknown(document: PolicyDocument, tree: Any, known: KnownNames) -> Iterable[Problem]:
    tags = {tag for info in known.checks.values() for tag in info.tags}
    benchmarks = {name for info in known.checks.values() for name in info.benchmarks}
    for index, rule in enumerate(document.rules):
        named: list[tuple[str, Sequence[str], Iterable[str]]] = [
            ("check", rule.check or (), known.checks),
            ("tag", rule.tag, tags),
            ("benchmark", rule.benchmark, benchmarks),
        ]
        if rule.vulnerability:
            named.append(("status", rule.vulnerability.status, STATUSES))
            named.append(("engine", (rule.vulnerability.engines,), ("any", "all", *sorted(known.engines))))
        if rule.signature:
            named.append(("scheme", rule.signature.scheme, known.schemes))
            groups = (
                [known.signers.get(s, frozenset()) for s in rule.signature.scheme]
                if known.signers is not None
                else [None]
            )
            if None not in groups:
                named.append(("signer", rule.signature.signers, {name for group in groups for name in group or ()}))
        for what, names, there in named:
            for name in names:
                if name not in set(there):
                    inner = {
                        "scheme": ["signature", "scheme"],
                        "signer": ["signature", "signers"],
                        "engine": ["vulnerability", "engines"],
                        "status": ["vulnerability", "status"],
                    }
                    path = ["rules", index, *inner.get(what, [what])]
                    message = f"there is no {what} {name!r}" + _did_you_mean(name, there)
                    message += " (add a trust root first)" if what == "signer" and not there else ""
                    yield Problem(*position(tree, path), f"rules.{index}.{what}", message)


def _parameters(document: PolicyDocument, tree: Any, known: KnownNames) -> Iterable[Problem]:
    """Yield parameters that no selected check has, or that have another type. They would silently do nothing."""
    for index, rule in enumerate(document.rules):
        chosen = [known.checks[name] for name in selected_checks(rule_of(rule), known) if name in known.checks]
        for name, value in rule.parameters.items():
            defaults = [info.parameters[name] for info in chosen if name in info.parameters]
            message = ""
            if not defaults:
                there = sorted({other for info in chosen for other in info.parameters})
                message = f"the selected checks have no parameter {name!r}" + _did_you_mean(name, there)
                message += f" (they have {', '.join(there)})" if there and "did you" not in message else ""
            elif wrong := next(filter(None, (_wrong_type(value, default) for default in defaults)), ""):
                message = f"must be {wrong}"
            if message:
                path = ["rules", index, "parameters", name]
                yield Problem(*position(tree, path), f"rules.{index}.parameters.{name}", message)


def _wrong_type(value: Any, default: Any) -> str:
    """Return the expected type if ``value`` does not have it. A bool is not a number."""
    if isinstance(default, tuple):
        items = as_tuple(value)
        good = isinstance(items, tuple) and all(isinstance(item, str) and item for item in items)
        if not good:
            return "a string or a list of strings"
        wrong = next(filter(None, map(glob.problem, items)), "")
        return f"printable and short: {wrong}" if wrong else ""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        # In Python a bool is an int: `max_age: true` would mean one day.
        good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST
        return "" if good else "a non-negative number"
    return "" if isinstance(value, str) else "a string"


def _expressions(document: PolicyDocument, tree: Any) -> Iterable[Problem]:
    for index, rule in enumerate(document.rules):
        if rule.when is not None and (message := expressions.problem(rule.when)):
            yield Problem(*position(tree, ["rules", index, "when"]), f"rules.{index}.when", message)
