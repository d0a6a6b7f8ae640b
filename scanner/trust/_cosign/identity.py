"""A keyless signer in a trust root: subject and issuer."""

from __future__ import annotations

from typing import Annotated

import re2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from scanner.trust._documents import UnsoundTrust


def _pattern(value: str) -> str:
    try:
        re2.compile(value)
    except re2.error:
        raise ValueError("not a regular expression (RE2 syntax)") from None
    return value


_Pattern = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_pattern)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Identity(BaseModel):
    """A keyless signer: the subject, and the issuer (identity provider) that confirmed it.

    Both are required: without the issuer, any provider could assert the subject. A regular expression (RE2, linear
    time) must match the whole text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: Text | None = None
    issuer_regexp: _Pattern | None = None
    subject: Text | None = None
    subject_regexp: _Pattern | None = None

    @model_validator(mode="after")
    def _has_issuer_and_subject(self) -> Identity:
        for name in ("issuer", "subject"):
            if (getattr(self, name) is None) is (getattr(self, f"{name}_regexp") is None):
                raise UnsoundTrust(f"give exactly one of {name} and {name}_regexp")
        return self

    def matches(self, issuer: str, subject: str) -> bool:
        return _matches(self.issuer, self.issuer_regexp, issuer) and _matches(
            self.subject, self.subject_regexp, subject
        )


def _matches(exact: str | None, pattern: str | None, value: str) -> bool:
    return value == exact if exact is not None else bool(pattern and re2.fullmatch(pattern, value))
