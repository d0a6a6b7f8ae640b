"""E-mail, by SMTP over TLS."""

from __future__ import annotations

import base64
import hmac
import html
import re
import smtplib
import socket
from collections.abc import Mapping
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from scanner.model.notification import Message
from scanner.model.untrusted import clean_text
from scanner.notify.base import (
    CA,
    ChannelFormat,
    DeliveryError,
    Field,
    Receipt,
    Target,
    address,
    invalid,
    left_out,
    shown_lines,
)

MAILBOX = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+"
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
# Bytes of all answers of a server together.
_ANSWERS = 64 << 10
_MAX_RECIPIENTS = 50
# Steps of AUTH: a server that asks on and on is stopped.
_CHALLENGES = 5


class Email(ChannelFormat):
    """See `ChannelFormat`."""

    id = "email"
    title = "E-mail"
    purpose = "people: immediate messages or a digest"
    setup = "The address and the account of your mail server. People may subscribe with addresses of allowed domains."
    per_person = True
    fields = (
        Field("server", "SMTP server", required=True, example="smtp.example.com:587"),
        Field("security", "Security", choices=tuple(_PORTS), hint="none: without TLS, and without a password"),
        Field("username", "User name"),
        Field("password", "Password", secret=True),
        Field("sender", "From", required=True, pattern=MAILBOX, example="dockwarden@example.com"),
        Field("recipients", "To", lines=True, example="security@example.com", hint="one address a line"),
        Field("domains", "Domains of people who may subscribe", lines=True, example="example.com", hint="one a line"),
        CA,
    )

    def check(self, values: Mapping[str, str]) -> None:
        """See `ChannelFormat.check`."""
        address(values["server"], "server", 25)
        for mailbox in values.get("recipients", "").split():
            if not re.fullmatch(MAILBOX, mailbox):
                raise invalid("recipients", f"{mailbox[:100]!r} is not an e-mail address")
        if len(values.get("recipients", "").split()) > _MAX_RECIPIENTS:
            raise invalid("recipients", f"name at most {_MAX_RECIPIENTS} addresses", "use a mailing list")
        if not values.get("recipients") and not values.get("domains"):
            raise invalid("recipients", "name an address, or a domain of people who may subscribe")
        if values.get("security") == "none" and values.get("password"):
            raise invalid("security", "a password is sent over TLS only", "choose starttls or tls")
        if bool(values.get("username")) != bool(values.get("password")):
            raise invalid("password", "give a user name and a password, or neither")

    def hosts(self, values: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
        """See `ChannelFormat.hosts`."""
        return (address(values["server"], "server", _PORTS[values.get("security") or "starttls"]),)

    def check_recipient(self, recipient: str, values: Mapping[str, str]) -> None:
        """See `ChannelFormat.check_recipient`."""
        domains = values.get("domains", "").lower().split()
        if not re.fullmatch(MAILBOX, recipient):
            raise invalid("recipient", f"{recipient[:100]!r} is not an e-mail address")
        if recipient.partition("@")[2].lower() not in domains:
            hint = "allowed: " + ", ".join(domains) if domains else "an administrator allows domains"
            raise invalid("recipient", "addresses of this domain may not subscribe", hint)

    def deliver(self, message: Message, target: Target) -> Receipt:
        """See `ChannelFormat.deliver`."""
        security = target.value("security", "starttls")
        host, port = address(target.value("server"), "server", _PORTS[security])
        to = [message.recipient] if message.recipient else target.value("recipients").split()
        if not to:
            raise DeliveryError("the channel has no recipient", reason="no_recipient", retryable=False)
        letter = compose(message, target.value("sender"), to)
        with target.connection(host, port, tls=security == "tls") as connection:
            smtp = _Smtp(connection, host)
            try:
                return _send_letter(smtp, target, letter, to, security)
            except smtplib.SMTPAuthenticationError as error:
                raise _refused_error("the mail server refuses the user name or password", error, True) from None
            except smtplib.SMTPRecipientsRefused as error:
                codes = [code for code, _ in error.recipients.values()]
                text = "; ".join(f"{code} {clean_text(_text(said), 200)}" for code, said in error.recipients.values())
                # RFC 5321 section 4.2.1: 4yz is temporary, 5yz is permanent. One temporary refusal is worth another
                # attempt.
                final = all(code >= 500 for code in codes)
                raise DeliveryError("no recipient is accepted", answer=text, retryable=not final) from None
            except smtplib.SMTPResponseException as error:
                raise _refused_error("the mail server refuses the message", error, error.smtp_code < 500) from None
            except smtplib.SMTPException:
                raise DeliveryError("the mail server does not speak SMTP as expected", reason="bad_answer") from None
            finally:
                with suppress(OSError, smtplib.SMTPException):
                    smtp.quit()
                smtp.close()


def _refused_error(what: str, error: smtplib.SMTPResponseException, again: bool) -> DeliveryError:
    said = clean_text(_text(error.smtp_error), 500)
    return DeliveryError(f"{what} ({error.smtp_code})", answer=f"{error.smtp_code} {said}", retryable=again)


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def _send_letter(smtp: _Smtp, target: Target, letter: EmailMessage, to: list[str], security: str) -> Receipt:
    smtp.begin()
    smtp.ehlo_or_helo_if_needed()
    if security == "starttls":
        smtp.starttls(context=target.context)  # raises where the server does not offer it: never in the clear instead
        smtp.ehlo()
    if password := target.secret("password"):
        smtp.login(target.value("username"), password.reveal())
    refused = smtp.send_message(letter, target.value("sender"), to)
    text = f"{len(to) - len(refused)} recipients accepted"
    if refused:
        text += ", refused: " + ", ".join(f"{box} ({code})" for box, (code, _) in refused.items())
    return Receipt("250", clean_text(text, 1000))


class _Smtp(smtplib.SMTP):
    """smtplib on a connection that was checked. Its answers have a bound: an endless one must not fill the memory."""

    def __init__(self, connection: socket.socket, host: str) -> None:
        self._bytes = 0
        # Without a name, smtplib looks up that of this machine, which can take seconds, and tells it to the server.
        super().__init__(local_hostname="dockwarden.invalid", timeout=15)
        self.sock, self._host = connection, host

    def begin(self) -> None:
        """Read the greeting."""
        code, said = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)

    def auth(self, mechanism: str, authobject: Any, *, initial_response_ok: bool = True) -> tuple[int, bytes]:
        """See `smtplib.SMTP.auth`, which breaks on a name or password that is not ASCII (RFC 4954: they are UTF-8), and
        on a challenge that is not base64.
        """
        initial = authobject() if initial_response_ok else None
        code, said = self.docmd("AUTH", f"{mechanism} {_encoded(initial)}" if initial is not None else mechanism)
        for _ in range(_CHALLENGES):
            if code != 334:
                break
            try:
                challenge = base64.b64decode(said, validate=True)
                answer = authobject(challenge)
            except ValueError:  # also of the mechanism, which reads the challenge as text
                raise smtplib.SMTPException("the challenge cannot be read") from None
            code, said = self.docmd(_encoded(answer))
        if code not in (235, 503):
            raise smtplib.SMTPAuthenticationError(code, said)
        return code, said

    def auth_cram_md5(self, challenge: bytes | None = None) -> str | None:  # type: ignore[override]
        """See `smtplib.SMTP.auth_cram_md5`."""
        if challenge is None:
            return None
        return f"{self.user} {hmac.new(self.password.encode(), challenge, 'md5').hexdigest()}"

    def getreply(self) -> tuple[int, bytes]:
        """See `smtplib.SMTP.getreply`."""
        if self.file is None:
            self.file = _BoundedFile(self.sock.makefile("rb"))  # type: ignore[union-attr]
        return super().getreply()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class _BoundedFile:
    """A file that ends after so many bytes."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, _ANSWERS

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise smtplib.SMTPServerDisconnected("the answer is too long")
        return line

    def close(self) -> None:
        self._file.close()


def compose(message: Message, sender: str, to: list[str]) -> EmailMessage:
    """The letter. Its Message-ID follows from the message's id, so that a mail program shows a repeated one once."""
    letter = EmailMessage()
    letter["From"] = Address("Dockwarden", addr_spec=sender)
    letter["To"] = ", ".join(to)
    letter["Subject"] = clean_text(message.title, 200)
    letter["Date"] = format_datetime(message.at)
    letter["Message-ID"] = f"<{message.id}@{sender.partition('@')[2]}>"
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies
    letter["X-Dockwarden-Event"] = message.kind
    lines, more = shown_lines(message), left_out(message)
    text = [message.title, ""]
    text += [f"- {line}" + (f"\n  {url}" if url else "") for line, url in lines]
    text += [f"- and {more} more"] if more else []
    text += ["", message.url] if message.url else []
    letter.set_content("\n".join(text) + "\n")
    rows = "".join(
        f'<li><a href="{html.escape(url)}">{html.escape(line)}</a></li>' if url else f"<li>{html.escape(line)}</li>"
        for line, url in lines
    )
    rest = f"<li>and {more} more</li>" if more else ""
    foot = f'<p><a href="{html.escape(message.url)}">Open in Dockwarden</a></p>' if message.url else ""
    title = html.escape(message.title)
    letter.add_alternative(f"<html><body><h3>{title}</h3><ul>{rows}{rest}</ul>{foot}</body></html>\n", "html")
    return letter
