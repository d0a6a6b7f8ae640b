"""Errors of Pydantic in plain words."""

from enum import StrEnum
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from scanner.model.untrusted import network_reason
from scanner.model.validation import plain_message


class Answer(StrEnum):
    YES = "yes"
    NO = "no"


class Part(BaseModel):
    pass


class Subject(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    some: Literal[Answer.YES, Answer.NO] = Answer.YES
    names: tuple[str, ...] = ()
    count: int = 1
    on: bool = True
    part: Part = Part()
    title: str = ""
    code: str = Field("1", pattern="^[0-9]+$")
    form: str = Field("1", pattern="^" + "[0-9]?" * 40 + "$")
    some_names: list[str] = Field(["a"], min_length=1)

    @field_validator("title")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 3:
            raise ValueError("at most 3 characters")
        return value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"some": "maybe"}, "must be 'yes' or 'no'"),
        ({"names": 3}, "must be a list"),
        ({"count": "x"}, "must be a whole number"),
        ({"on": 3}, "must be true or false"),
        ({"part": 3}, "must be a mapping"),
        ({"title": 3}, "must be a string"),
        ({"title": "hunter2"}, "at most 3 characters"),
        ({"other": 1}, "unknown field"),
        ({"code": "x"}, "must match pattern '^[0-9]+$'"),
        ({"form": "x"}, "does not have the required form"),
        ({"some_names": []}, "must have at least 1 item"),
    ],
)
def test_no_word_of_python(given: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Subject.model_validate(given)
    assert [plain_message(each) for each in refused.value.errors()] == [expected]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError("[Errno -2] Name or service not known"), "Name or service not known"),
        (TimeoutError(), "TimeoutError"),
        (
            OSError(
                "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"
            ),
            "self-signed certificate",
        ),
    ],
)
def test_a_connection_error_has_no_number(error: OSError, expected: str) -> None:
    assert network_reason(error) == expected
