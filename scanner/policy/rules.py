"""The rules of a policy, and what a policy selects. See ``docs/policies.md`` for every field.

``scanner.policy.document`` reads the YAML form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from scanner.errors import UsageError
from scanner.lazy_dataclasses import dataclass
from scanner.model.decision import Verdict
from scanner.model.finding import Outcome, Severity
from scanner.model.image import Image
from scanner.model.reference import Digest


@dataclass(frozen=True)
class Problem:
    """One error of a document. ``line`` and ``column`` count from 1; 0 if the error has no position."""

    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.field + ': ' if self.field else ''}{self.message}"


class PolicyError(UsageError):
    """A policy document with errors. ``problems`` lists all of them."""

    default_reason = "invalid_policy"

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(map(str, self.problems[:10]))
        super().__init__(f"{name or 'the policy'} is refused: {shown}", hint="see docs/policies.md")


@dataclass(frozen=True)
class CheckInfo:
    """What policies know of a check: by what it is selected, and its parameters."""

    severity: Severity
    tags: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()  # "cis-docker-1.6/4.1", "dockle/CIS-DI-0001"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # name -> default, whose type is the parameter's
    # applies a policy's parameters to a stored outcome; None: the check has no parameters
    judge: Callable[[Outcome, Image | None, Mapping[str, Any]], Outcome] | None = (
        None  # evaluates a stored outcome with other parameters
    )
    of_workload: bool = False  # true for workload checks, which need a workload


@dataclass(frozen=True, eq=False)
class KnownNames:
    """The names that a policy can use; ``scanner.catalog.known_names`` fills it.

    ``signers`` are by scheme; None (for all or one scheme) accepts any name. Compared by identity, because each process
    has one instance.
    """

    checks: Mapping[str, CheckInfo]
    schemes: frozenset[str] = frozenset()
    engines: frozenset[str] = frozenset()
    signers: Mapping[str, frozenset[str] | None] | None = None


def as_tuple(value: Any) -> Any:
    """Return a text or a list of texts, as a policy may write them, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Action = Literal[Verdict.DENY, Verdict.WARN]


@dataclass(frozen=True)
class VulnerabilitySelector:
    """Selects vulnerabilities that match every given member. At least one is given."""

    severity: tuple[Severity, ...] = ()
    fixable: bool | None = None
    known_exploited: bool | None = None
    epss: float | None = None  # at least this probability
    cvss: float | None = None  # at least this score
    ids: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    status: tuple[str, ...] = ()  # the distribution's, such as will_not_fix
    engines: str = "any"


@dataclass(frozen=True)
class SignatureSelector:
    """Selects signatures or attestations.

    ``signers``, ``keys`` and ``identities`` are alternatives; ``require`` is how many of them are needed. ``fields``:
    accepted values of an attestation's predicate, by path.
    """

    scheme: tuple[str, ...]
    signers: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    require: Literal["any", "all"] | int = "any"
    attestation: str = ""  # a predicate type, in which * matches any text; empty: a signature
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """One rule: exactly one selector, and an action."""

    id: str
    action: Action
    description: str = ""
    vulnerability: VulnerabilitySelector | None = None
    check: tuple[str, ...] | None = None  # ids; None: the rule is not about checks
    tag: tuple[str, ...] = ()
    benchmark: tuple[str, ...] = ()  # items such as cis-docker-1.6/4.1
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the selected checks
    signature: SignatureSelector | None = None
    when: str | None = None  # CEL
    grace: timedelta | None = None  # since the finding was first seen in the repository
    incomplete: Action | None = None  # what missing evidence does; None: as the policy says


Judge = Callable[[Outcome, Image | None], Outcome]


@dataclass(frozen=True)
class Policy:
    """A valid policy. ``digest`` is the digest of ``text``; decisions refer to it."""

    name: str
    description: str
    images: tuple[str, ...]  # globs over host/repository
    environments: tuple[str, ...]  # empty: all, and requests without one
    incomplete: Verdict
    advisories_max_age: timedelta  # older ones are missing evidence
    rules: tuple[Rule, ...]
    checks: Mapping[str, tuple[str, ...]]  # rule id -> ids of the checks it selects
    text: str
    digest: Digest
    signatures_max_age: timedelta = timedelta(hours=24)
    # Rule id -> check id -> evaluation with the rule's parameters.
    judges: Mapping[str, Mapping[str, Judge]] = field(default_factory=dict)
    posture_max_age: timedelta = timedelta(hours=168)  # older results of the registry's checks are missing evidence
    accepts_attached: bool = False  # SBOMs attached to the image are used
    evidence_max_age: timedelta | None = None  # maximum age of the evidence; None: no limit
    workload_checks: frozenset[str] = frozenset()  # ids of all workload checks
    immutable_tags: tuple[str, ...] = ()  # patterns of tags that must keep naming what they named first
    moved_tag: Action = Verdict.DENY  # action for an immutable tag that names something else

    @cached_property
    def checks_of_workloads(self) -> Mapping[str, tuple[str, ...]]:
        """The workload checks that each rule selects, by the rule's id."""
        return {rule: tuple(n for n in names if n in self.workload_checks) for rule, names in self.checks.items()}


@lru_cache(maxsize=64)  # one policy decides about thousands of images, and parsing its YAML takes longer than deciding
def parse_policy(text: str, name: str = "", *, known: KnownNames) -> Policy:
    """Parse a policy (YAML or JSON). Raises PolicyError with line and column of every error."""
    from scanner.policy.document import read_document, rule_of

    document = read_document(text, name, known)
    rules = tuple(map(rule_of, document.rules))
    return Policy(
        name=document.metadata.name,
        description=document.metadata.description,
        images=document.match.images or ("**",),
        environments=document.match.environments,
        incomplete=document.incomplete,
        advisories_max_age=document.advisories.max_age,
        posture_max_age=document.posture.max_age,
        accepts_attached=document.attached_sboms.accept,
        rules=rules,
        # Resolved once here, so that a check that a newer version adds to a tag counts from the next parse on,
        # without an edit.
        checks={rule.id: selected_checks(rule, known) for rule in rules},
        text=text,
        digest=Digest.of(text.encode()),
        signatures_max_age=document.signatures.max_age,
        evidence_max_age=document.evidence.max_age,
        immutable_tags=document.tags.immutable,
        moved_tag=document.tags.action,
        judges={rule.id: dict(_judges(rule, known)) for rule in rules if rule.parameters},
        workload_checks=frozenset(name for name, info in known.checks.items() if info.of_workload),
    )


DEFAULT_POLICY = Path(__file__).with_name("default.yaml")


def default_policy(known: KnownNames) -> Policy:
    """Return the policy for images that no other policy matches."""
    return parse_policy(DEFAULT_POLICY.read_text("utf-8"), "the default policy", known=known)


def selected_checks(rule: Rule, known: KnownNames) -> tuple[str, ...]:
    """Return the ids of the checks that a rule selects, sorted."""
    found = set(rule.check or ())
    for identifier, info in known.checks.items():
        if set(rule.tag) & set(info.tags) or set(rule.benchmark) & set(info.benchmarks):
            found.add(identifier)
    return tuple(sorted(found))


def _judges(rule: Rule, known: KnownNames) -> Iterable[tuple[str, Judge]]:
    """Return the selected checks that take parameters of the rule, with the parameters bound."""
    for identifier in selected_checks(rule, known):
        info = known.checks[identifier]
        mine = {
            name: as_tuple(value) if isinstance(info.parameters[name], tuple) else value
            for name, value in rule.parameters.items()
            if name in info.parameters
        }
        if mine and info.judge is not None:
            yield identifier, partial(_judge, info.judge, mine)


def _judge(
    judge: Callable[[Outcome, Image | None, Mapping[str, Any]], Outcome],
    parameters: Mapping[str, Any],
    outcome: Outcome,
    image: Image | None,
) -> Outcome:
    return judge(outcome, image, parameters)
