"""Name constraints (RFC 5280 section 4.2.1.10): the names that an authority may certify.

A company's authority often holds a certificate that is limited to the company's own names. Without this check it could
certify any name. If the extension is critical, a verifier that does not check it must refuse every certificate below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from scanner.model.untrusted import clean_text
from scanner.trust._pki import extension


def violation(path: Sequence[x509.Certificate]) -> str:
    """Return the first name in ``path`` (leaf first, anchor last) that an authority above it may not certify, as a
    sentence. Empty if there is none.
    """
    for index, authority in enumerate(path):
        constraints = extension(authority, x509.NameConstraints) if index else None
        if constraints is None:
            continue
        for below, certificate in enumerate(path[:index]):
            if below and certificate.subject == certificate.issuer:
                continue  # 6.1.3 (b): a self-issued intermediate, as in a change of keys
            for name in _names(certificate):
                if not _is_allowed(name, constraints):
                    return f"{clean_text(str(name.value), 200)} is outside the name constraints of its authority"
    return ""


def _names(certificate: x509.Certificate) -> Iterator[x509.GeneralName]:
    """The names to check (section 6.1.3 b and c): the subject and every subjectAltName.

    An e-mail address in the subject counts only if no subjectAltName is one.
    """
    if list(certificate.subject):
        yield x509.DirectoryName(certificate.subject)
    others = extension(certificate, x509.SubjectAlternativeName)
    yield from others or ()
    if others is None or not others.get_values_for_type(x509.RFC822Name):
        for item in certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS):
            # Not ASCII: RFC 5280 compares mailboxes as IA5String. An empty name matches no permitted tree, so it is
            # refused.
            yield x509.RFC822Name(str(item.value)) if str(item.value).isascii() else x509.RFC822Name("")


def _is_allowed(name: x509.GeneralName, constraints: x509.NameConstraints) -> bool:
    matches = _MATCHES.get(type(name))
    excluded = [tree for tree in constraints.excluded_subtrees or () if type(tree) is type(name)]
    permitted = [tree for tree in constraints.permitted_subtrees or () if type(tree) is type(name)]
    if not excluded and not permitted:
        return True
    if matches is None:  # a constraint on a kind of name that is not compared here: refuse rather than ignore it
        return False
    if any(matches(name, tree, True) for tree in excluded):
        return False
    return not permitted or any(matches(name, tree, False) for tree in permitted)


def _dns(name: x509.GeneralName, tree: x509.GeneralName, wide: bool) -> bool:
    return _below(str(name.value), str(tree.value), itself=not str(tree.value).startswith("."))


def _mail(name: x509.GeneralName, tree: x509.GeneralName, wide: bool) -> bool:
    """A mailbox, all mailboxes of a host, or of every host below a domain. Anything else counts as excluded."""
    local, at, host = str(name.value).rpartition("@")
    if not at or not local:
        return wide
    wanted = str(tree.value)
    if "@" in wanted:
        its_local, _, its_host = wanted.rpartition("@")
        return local == its_local and host.lower() == its_host.lower()
    return _below(host, wanted, itself=False) if wanted.startswith(".") else host.lower() == wanted.lower()


def _uri(name: x509.GeneralName, tree: x509.GeneralName, wide: bool) -> bool:
    """Compare by host.

    RFC 5280 matches a host without a leading dot exactly; Go also matches the hosts below it. Permitted names are
    therefore read narrowly and excluded names widely. A URI without a host name counts as excluded.
    """
    try:
        host = urlsplit(str(name.value)).hostname or ""
    except ValueError:
        host = ""
    if not host or host.replace(".", "").isdigit() or ":" in host:
        return wide
    wanted = str(tree.value)
    if wanted.startswith("."):
        return _below(host, wanted, itself=False)
    return _below(host, wanted, itself=True) if wide else host.lower() == wanted.lower()


def _address(name: x509.GeneralName, tree: x509.GeneralName, wide: bool) -> bool:
    network = tree.value
    return isinstance(network, IPv4Network | IPv6Network) and name.value in network


def _directory(name: x509.GeneralName, tree: x509.GeneralName, wide: bool) -> bool:
    """True if the name begins with all relative names of the tree."""
    have, wanted = _relative(name.value), _relative(tree.value)
    return have[: len(wanted)] == wanted


def _relative(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    """Normalise a name as RFC 5280 section 7.1 requires for comparison: case is ignored, blanks are single."""
    return [
        frozenset((item.oid.dotted_string, " ".join(str(item.value).split()).casefold()) for item in rdn)
        for rdn in name.rdns
    ]


def _below(host: str, domain: str, *, itself: bool) -> bool:
    """True if the host is below the domain, label by label; with ``itself`` also if it is the domain."""
    have, wanted = host.lower().rstrip("."), domain.lower().strip(".")
    return not wanted or have.endswith("." + wanted) or (itself and have == wanted)


_MATCHES: Mapping[type[x509.GeneralName], Callable[[x509.GeneralName, x509.GeneralName, bool], bool]] = {
    x509.DNSName: _dns,
    x509.RFC822Name: _mail,
    x509.UniformResourceIdentifier: _uri,
    x509.IPAddress: _address,
    x509.DirectoryName: _directory,
}
