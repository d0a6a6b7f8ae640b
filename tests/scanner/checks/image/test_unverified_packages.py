from __future__ import annotations

import pytest

from scanner.checks.image.unverified_packages import UnverifiedPackages
from scanner.model.finding import Failed, Incomplete, Passed
from tests.scanner.checks.factory import built_by, layer, subject, unreadable, without_history


@pytest.mark.parametrize(
    "script",
    [
        "apt-get install -y --allow-unauthenticated x",
        "apt-get -o APT::Get::AllowUnauthenticated=true install x",
        "apk add --allow-untrusted /x.apk",
        "yum install --nogpgcheck -y x",
        "dnf --setopt=gpgcheck=0 install x",
        "rpm -i --nosignature x.rpm",
        "pip install --trusted-host example.com x",
        "pip install --trusted-host=example.com x",
        "curl -fsSLk https://example.com/x -o x",
        "wget --no-check-certificate https://example.com/x",
        "npm config set strict-ssl false && npm ci",
        "git -c http.sslVerify=false clone https://example.com/x",
        "git config --global http.sslVerify false",
        "git config --global http.sslVerify off",
        "git -c http.sslVerify=no clone https://example.com/x",
        "GIT_SSL_NO_VERIFY=false git clone https://example.com/x",
        "NODE_TLS_REJECT_UNAUTHORIZED=0 npm ci",
        "PIP_TRUSTED_HOST=example.com pip install x",
        "apt-get -o APT::Get::AllowUnauthenticated=on install x",
        "dnf --setopt=*.gpgcheck=off install x",
    ],
)
def test_told_not_to_look(script: str) -> None:
    outcome = UnverifiedPackages().examine(built_by(f"RUN /bin/sh -c {script} # buildkit"))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].layer_index == 1


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("etc/apt/sources.list", b"deb [trusted=yes] http://example.com/ ./\n"),
        ("etc/apt/sources.list.d/x.list", b"# x\ndeb [arch=amd64 trusted=yes] http://example.com/ ./\n"),
        ("etc/apt/sources.list.d/x.sources", b"Types: deb\nTrusted: yes\n"),
        ("etc/apt/apt.conf.d/99x", b'APT::Get::AllowUnauthenticated "true";\n'),
        ("etc/yum.repos.d/x.repo", b"[x]\nbaseurl=http://example.com\ngpgcheck = 0\n"),
        ("etc/yum.conf", b"[main]\ngpgcheck=0\n"),
        ("etc/yum.repos.d/x.repo", b"[x]\ngpgcheck=off\n"),
        ("etc/apt/sources.list", b"deb [ trusted=true ] http://example.com/ ./\n"),
        ("etc/apt/sources.list.d/x.list", b"deb [trusted=1] http://example.com/ ./\n"),
        ("etc/apt/sources.list.d/x.sources", b"Types: deb\nTrusted: on\n"),
        ("etc/apt/apt.conf.d/99x", b"APT::Get::AllowUnauthenticated enable;\n"),
    ],
)
def test_configured_not_to_look(path: str, data: bytes) -> None:
    outcome = UnverifiedPackages().examine(subject(layer(contents={path: data}), history=()))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].path == path


@pytest.mark.parametrize("path", ["etc/apt/sources.list", "etc/apt/apt.conf.d/x"])
def test_a_megabyte_of_blank_lines_takes_no_time(path: str) -> None:
    """Each line was searched to the end of the file: hours."""
    blank = subject(layer(contents={path: b"\n" * (1 << 20)}), history=["# debian.sh"])
    assert isinstance(UnverifiedPackages().examine(blank), Passed)


@pytest.mark.parametrize(
    ("script", "files"),
    [
        (
            "curl -fsSL https://example.com/x; echo --allow-unauthenticated; sort -k 2 x; wget -k https://example.com",
            {},
        ),
        (
            "pip install -r requirements.txt",
            {"etc/apt/sources.list": b"deb [signed-by=/x] http://example.com/ ./\n# [trusted=yes]\n"},
        ),
        ("ls", {"etc/apt/sources.list": b"deb [trusted=no] http://example.com/ ./\n"}),
        ("ls", {"etc/yum.repos.d/x.repo": b"[x]\nenabled=off\ngpgcheck=off\n"}),
        ("ls", {"etc/yum.repos.d/x.repo": b"[x]\nenabled=0\ngpgcheck=0\n[y]\ngpgcheck=1\n"}),
    ],
)
def test_they_look(script: str, files: dict[str, bytes]) -> None:
    built = built_by(f"RUN /bin/sh -c {script}")
    assert isinstance(UnverifiedPackages().examine(built), Passed)
    assert isinstance(UnverifiedPackages().examine(subject(layer(contents=files), history=["# debian.sh"])), Passed)


def test_what_cannot_be_told_is_not_known() -> None:
    assert isinstance(UnverifiedPackages().examine(without_history()), Incomplete)
    assert isinstance(UnverifiedPackages().examine(unreadable()), Incomplete)
