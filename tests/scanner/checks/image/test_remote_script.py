from __future__ import annotations

import pytest

from scanner.checks.image.remote_script import RemoteScript
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from tests.scanner.checks.factory import built_by, without_history


def examine(script: str) -> Outcome:
    return RemoteScript().examine(built_by(f"RUN /bin/sh -c {script} # buildkit"))


@pytest.mark.parametrize(
    "script",
    [
        "curl -fsSL https://example.com/i.sh | sh",
        "wget -qO- https://example.com/i.sh | sudo -E bash -s -- --yes",
        "set -e; curl https://example.com/i.py | python3 -",
        "curl https://example.com/i.sh | tee /tmp/x | /bin/bash",
        "bash <(curl -s https://example.com/i.sh)",
        'sh -c "$(curl -fsSL https://example.com/i.sh)"',
        'eval "$(wget -O - https://example.com/i.sh)"',
        ". <(curl https://example.com/i.sh)",
        'bash <<< "$(curl https://example.com/i.sh)"',
        "curl -o /tmp/i.sh https://example.com/i.sh && sh /tmp/i.sh",
        "curl -fsSLo i.sh https://example.com/i.sh\nchmod +x i.sh\n./i.sh",
        "curl https://example.com/i.sh > i.sh; bash i.sh",
        "wget https://example.com/a/i.sh?x=1 && bash i.sh",
        "curl -sSLO https://example.com/i.py && python3 i.py",
    ],
)
def test_code_from_the_network(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Failed)
    assert "https://example.com/" in outcome.evidence[0].message


@pytest.mark.parametrize(
    "script",
    [
        "curl -fsSL https://example.com/key.asc | gpg --dearmor -o /x",
        "curl https://example.com/x.tar.gz | tar xz",
        "curl https://example.com/x.json | python3 -c 'import json'",
        "curl https://example.com/x.json | python3 -m json.tool",
        "curl https://example.com/x | node script.js",
        "bash -c 'curl https://example.com/x.tgz | tar xz'",
        "curl -o i.sh https://example.com/i.sh && echo 'abc  i.sh' | sha256sum -c && sh i.sh",
        "wget -O go.tgz https://example.com/go.tgz; tar xf go.tgz; ./configure",
        'python3 build.py "$(curl https://example.com/version)"',
        "echo 'curl https://example.com | sh'",
        "pip install x",
    ],
)
def test_data_from_the_network(script: str) -> None:
    assert isinstance(examine(script), Passed)


def test_without_history_it_is_not_known() -> None:
    assert isinstance(RemoteScript().examine(without_history()), Incomplete)


FETCH = "curl -fsSL https://example.com/i.sh"


@pytest.mark.parametrize(
    "shell",
    [
        "bash -eo pipefail",
        "bash -o errexit",
        "bash -O extglob",
        "bash --rcfile /x",
        "bash --norc -euo pipefail -s -- x",
        "bash +o posix",
        "zsh -o errexit",
        "python3 -X utf8",
        "python3 -W ignore -u -",
        "perl -I /x",
        "ruby -r json",
        "node -r x",
        "php -d a=b",
        "deno run -",
        "sudo -u app bash -l",
        "env -S 'bash -eo pipefail'",
        "/usr/bin/env -i bash",
        "timeout 5 bash",
        "busybox sh",
        "bash5.2",
        "fish",
        "su - app",
    ],
)
def test_a_shell_whose_options_take_a_value_still_reads_the_network(shell: str) -> None:
    assert isinstance(examine(f"{FETCH} | {shell}"), Failed)


@pytest.mark.parametrize(
    "script",
    [
        "bash -eo pipefail <<EOF\ncurl https://example.com/i.sh | sh\nEOF",
        "bash -O extglob <<'EOF'\ncurl https://example.com/i.sh | sh\nEOF",
        "cat <<EOF | bash -o errexit\ncurl https://example.com/i.sh | sh\nEOF",
        "bash <<< 'curl https://example.com/i.sh | sh'",
        "echo 'curl https://example.com/i.sh | sh' | sh",
        'bash -c "curl https://example.com/i.sh | sh; echo $(date)"',
    ],
)
def test_a_script_inside_a_script_is_read(script: str) -> None:
    assert isinstance(examine(script), Failed)


@pytest.mark.parametrize(
    "script",
    [
        f"{FETCH} | sh -c bash",
        f"{FETCH} | (cat; sh)",
        f"{FETCH} | tee >(bash)",
        f"{FETCH} > >(sh)",
        f"{FETCH} | source /dev/stdin",
        f"{FETCH} | xargs -I{{}} sh -c '{{}}'",
        f'{FETCH} | while read l; do eval "$l"; done',
        'X=$(curl https://example.com/x); eval "$X"',
        'X=`curl https://example.com/x`; echo "$X" | sh',
        "export X=$(curl https://example.com/x) && bash <<< $X",
    ],
)
def test_other_ways_from_the_network_to_a_shell(script: str) -> None:
    assert isinstance(examine(script), Failed)


@pytest.mark.parametrize(
    "script",
    [
        f"{FETCH} | cat > x; sh x",
        f"{FETCH} | tee x; bash -eo pipefail x",
        "curl -o /tmp/x https://example.com/x; sh < /tmp/x",
        "curl -o /tmp/x https://example.com/x; cat /tmp/x | sh",
        'curl --output=x https://example.com/x; eval "$(cat x)"',
        "curl -o x https://example.com/x; mv x /opt/y; sh /opt/y",
        "curl -o x https://example.com/x; install -m 755 x /usr/local/bin; /usr/local/bin/x",
        "wget -P /tmp https://example.com/i.sh; sh /tmp/i.sh",
    ],
)
def test_other_ways_from_a_saved_file_to_a_shell(script: str) -> None:
    assert isinstance(examine(script), Failed)


@pytest.mark.parametrize(
    "script",
    [
        "curl -o i.sh https://example.com/i.sh; echo 'abc  other.tgz' | sha256sum -c && sh i.sh",
        "curl -o i.sh https://example.com/i.sh; sh i.sh; echo 'abc  i.sh' | sha256sum -c",
        "curl -o i.sh https://example.com/i.sh; gpg --verify other.asc other; sh i.sh",
        "curl -o i.sh https://example.com/i.sh; sha256sum other && bash i.sh",
    ],
)
def test_a_check_of_another_file_or_too_late_is_none(script: str) -> None:
    assert isinstance(examine(script), Failed)


@pytest.mark.parametrize(
    "script",
    [
        "curl -o i.sh https://example.com/i.sh; sha256sum -c SUMS && sh i.sh",
        'curl -o i.sh https://example.com/i.sh; echo "$SUM  $FILE" | sha256sum -c - && sh i.sh',
        "echo ZWNobw== | base64 -d | sh",
    ],
)
def test_what_was_checked_or_run_cannot_always_be_told(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == "history_not_understood"


@pytest.mark.parametrize(
    "check",
    [
        'echo "$SHA  /tmp/i.sh" | sha256sum -c -',
        "gpg --batch --verify i.sh.asc",
        "grep i.sh SUMS | sha256sum -c -",
        "echo 'abc i.sh' > SUMS; sha256sum -c SUMS",
        "sha256sum -c - <<EOF\nabc  i.sh\nEOF\n:",
        "sha256sum -c <<< 'abc  i.sh'",
        "[ \"$(sha256sum i.sh | cut -d' ' -f1)\" = abc ]",
        "cosign verify-blob --signature i.sh.sig --key k.pub i.sh",
    ],
)
def test_a_check_of_this_very_file(check: str) -> None:
    assert isinstance(examine(f"curl -o /tmp/i.sh https://example.com/i.sh; {check}; sh /tmp/i.sh"), Passed)


@pytest.mark.parametrize(
    "line",
    [
        "{ " + "a;" * 800 + " }|{ " + "b;" * 800 + " }|{ " + "c;" * 800 + " }|{ " + "d;" * 800 + " }",
        "curl u|" + "|".join(["{ " + "sh;" * 500 + " }"] * 8),
        "curl -o a u;" + "".join(f"cp a{n} b{n};cp a c{n};" for n in range(700)),
        "curl -o x u;" + "sha256sum y;sh x;" * 600,
    ],
)
def test_many_ways_to_one_command_are_walked_once(line: str) -> None:
    assert isinstance(examine(line[:16_300]), Failed | Incomplete | Passed)


def of_lines(*lines: str) -> Outcome:
    return RemoteScript().examine(built_by(*lines))


@pytest.mark.parametrize(
    "script",
    [
        f"S=sh; {FETCH} | $S",
        "C=curl; $C https://example.com/i.sh | sh",
        f"{FETCH} | $'\\x73h'",
        "$'\\x63url' https://example.com/i.sh | sh",
        "curl${IFS}https://example.com/i.sh|sh",
        f"f() {{ {FETCH}; }}; f | sh",
        f"f() {{ sh; }}; {FETCH} | f",
        "alias g=curl; g https://example.com/i.sh | sh",
        f"$({FETCH})",
        f"x=$({FETCH}); $x",
        f'read -r x < <({FETCH}); eval "$x"',
        f'{FETCH} | bash -c "$(cat)"',
        f'bash -c \'eval "$0"\' "$({FETCH})"',
        f"bash --rcfile <({FETCH}) -i",
        f"find . -maxdepth 0 -exec sh -c '{FETCH} | sh' \\;",
        f"trap '{FETCH} | sh' EXIT",
        f"printf '%s | %s' '{FETCH}' sh | sh",
        f"echo '{FETCH} | sh' > x; sh x",
        f"cat > /x <<'E'\n{FETCH} | sh\nE\nchmod +x /x; /x",
        "curl -fsSLox https://example.com/x; sh ./x",
        'wget https://example.com/x -O x; eval "$(<x)"',
        "wget https://example.com/x -O x; sed s/a/b/ x | sh",
        "wget https://example.com/x.gz -O x.gz; gunzip x.gz; sh x",
        "wget -O /usr/local/bin/tool https://example.com/tool; chmod +x /usr/local/bin/tool; tool init",
        "aws s3 cp https://example.com/i.sh i.sh; sh i.sh",
        "lynx -source https://example.com/i.sh | sh",
        "some-client https://example.com/i.sh | sh",
        "deno run https://example.com/i.ts",
        f"{FETCH} | make -f -",
        f"{FETCH} | flock /tmp/l sh",
        """python3 -c 'import urllib.request as u; exec(u.urlopen("https://example.com/i").read())'""",
        """perl -MLWP::Simple -e 'eval get "https://example.com/i"'""",
        """awk 'BEGIN { system("curl https://example.com/i | sh") }'""",
        """php -r "copy('https://example.com/i', 'i.php');" && php i.php""",
    ],
)
def test_code_from_the_network_by_another_name(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Failed)
    assert any("https://example.com/" in one.message or "run" in one.message for one in outcome.evidence)


@pytest.mark.parametrize(
    "script",
    [
        f"{FETCH} | ${{SHELL:-/bin/sh}}",
        f"{FETCH} | some-wrapper --x sh",
        "some-client fetch i.sh | sh",
        'eval "$INSTALL"',
        'sh -c "${INSTALL}"',
        'echo "$INSTALL" | sh',
        'eval "$(echo Y3VybA== | base64 -d)"',
        "bash <(echo Y3VybA== | base64 -d)",
        "echo Y3VybA== | base64 -d | cat | sh",
        """python3 -c 'import requests; exec(requests.get(place).text)'""",
    ],
)
def test_code_of_which_nobody_can_tell_whence_it_is_unknown(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Incomplete)
    assert outcome.reason == "history_not_understood"


def test_what_one_line_saves_another_runs() -> None:
    run = "RUN /bin/sh -c {} # buildkit".format
    assert isinstance(of_lines(run(f"{FETCH} -o /tmp/i.sh"), run("sh /tmp/i.sh")), Failed)
    assert isinstance(of_lines("ADD https://example.com/i.sh /tmp/ # buildkit", run("sh /tmp/i.sh")), Failed)
    assert isinstance(of_lines(run(f"echo '{FETCH} | sh' > /x"), run("/x")), Failed)
    verified = run("echo 'abc  /tmp/i.sh' | sha256sum -c")
    assert isinstance(of_lines(run(f"{FETCH} -o /tmp/i.sh"), verified, run("sh /tmp/i.sh")), Passed)
    checked = f"ADD --checksum=sha256:{'0' * 64} https://example.com/i.sh /tmp/ # buildkit"
    assert isinstance(of_lines(checked, run("sh /tmp/i.sh")), Passed)


@pytest.mark.parametrize(
    "script",
    [
        'eval "$(dpkg-architecture -s)"; . /etc/profile; "$PYTHON" -m pip install x',
        "find . -type f -exec ldd '{}' ';' | awk '{ print $1 }' | sort -u | xargs -rt dpkg-query --search",
        "yes | sh ./install.sh",
        """php -r "copy('https://example.com/i', 'i.php');" """
        """&& php -r "if (hash_file('sha384', 'i.php') !== 'abc') { exit(1); }" && php i.php""",
        "python3 -c \"import urllib.request; urllib.request.urlretrieve('https://example.com/d', 'd')\"",
        "wget -O /usr/local/bin/gosu https://example.com/gosu; "
        "wget -O /usr/local/bin/gosu.asc https://example.com/g.asc; "
        "gpg --batch --verify /usr/local/bin/gosu.asc /usr/local/bin/gosu; gosu --version",
        'cat > /entry.sh <<E\n#!/bin/sh\nexec "$@"\nE\nchmod +x /entry.sh; /entry.sh true',
        'VERSION=$(curl -s https://example.com/version); pip install "x==$VERSION"',
    ],
)
def test_what_official_images_do_is_no_find(script: str) -> None:
    assert isinstance(examine(script), Passed)
