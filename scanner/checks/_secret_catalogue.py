"""All kinds of secrets that are recognised by their form, one row each. To add a provider, add a row: ``token`` for a
format with a prefix, ``named`` for one that only the name of its setting gives away, ``Shape`` for anything else.

The formats are those that the providers document; the kinds are at least those that the rule lists of Trivy and
gitleaks name. ``docs/secrets.md`` is generated from this table. A change here needs another
``_secrets.SecretScanner.version``.
"""

from __future__ import annotations

import re

from scanner.checks._encodings import BASE64 as _BASE64
from scanner.checks._encodings import DASH as _DASH
from scanner.checks._encodings import GLUE as _GLUE
from scanner.checks._encodings import SPACE as _SPACE
from scanner.checks._secret_shapes import Shape, shape_with_name, token
from scanner.patterns import lazy_re2

_KEY_HEADERS = rb"(?:Proc-Type|DEK-Info|Comment|Version|Charset): ?[^\r\n\\]{0,100}"
_ESCAPED_KEY = lazy_re2(
    rb"-----BEGIN(?: [A-Z]{2,10})? PRIVATE KEY(?: BLOCK)?-----(?:G*H){0,4}G*B{36}".replace(b"H", _KEY_HEADERS)
    .replace(b"-----", _DASH + b"{5}")
    .replace(b" ", _SPACE)
    .replace(b"G*", _GLUE + b"*")
    .replace(b"B{", _BASE64 + b"{")
)
_KEY_ANCHORS = (b"PRIVATE KEY", b"PRIVATE+KEY", b"PRIVATE%20KEY", b"PRIVATE%2520KEY", b"PRIVATE\\u0020KEY")
_UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_HEX = "[0-9a-fA-F]"
_ALNUM = "[A-Za-z0-9]"
_NOT_URL = "[A-Za-z0-9_-]"  # what may stand neither before nor after a token with these characters

SHAPES = (
    Shape(
        "private-key",
        "private key",
        _KEY_ANCHORS,
        rb"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY(?: BLOCK)?-----\s{0,4}(?:[\w-]{1,40}: "
        rb"[^\r\n]{0,200}\r?\n){0,10}\s{0,4}"
        rb"[A-Za-z0-9+/=\s]{40}",
        coarse=tuple(map(re.escape, _KEY_ANCHORS)),
        escaped=_ESCAPED_KEY,
    ),
    Shape(  # RFC 7517; only private keys have the member ``d``
        "jwk-private-key",
        "private key (JWK)",
        (b"kty",),
        rb"\{(?=[^{}]{0,4000}[\"']kty\\*[\"'])"
        rb"[^{}]{0,4000}?[\"']d\\*[\"']\s{0,8}:\s{0,8}\\*[\"'][A-Za-z0-9_-]{40,}\\*[\"']",
        coarse=(rb"[\"']kty\\*[\"']",),
    ),
    Shape(  # RFC 7518, 6.4: a symmetric key, which signs and encrypts
        "jwk-secret-key",
        "symmetric key (JWK)",
        (b"kty",),
        rb"\{(?=[^{}]{0,4000}[\"']kty\\*[\"']\s{0,8}:\s{0,8}\\*[\"']oct\\*[\"'])"
        rb"[^{}]{0,4000}?[\"']k\\*[\"']\s{0,8}:\s{0,8}\\*[\"'](?P<value>[A-Za-z0-9_-]{22,})\\*[\"']",
        coarse=(rb"[\"']kty\\*[\"']",),
    ),
    Shape(
        "ssh2-private-key",
        "private key (SSH2)",
        (b"PRIVATE KEY ----",),
        rb"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----\s{1,4}(?:[\w-]{1,40}: [^\r\n]{0,200}\r?\n){0,10}"
        rb"[A-Za-z0-9+/=\s]{40}",
        coarse=(rb"---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----",),
    ),
    Shape(
        "openvpn-key",
        "OpenVPN static key",
        (b"OpenVPN Static key V1",),
        rb"-----BEGIN OpenVPN Static key V1-----(?:\s|\\+[nr]){1,4}(?P<value>[0-9a-f]{32})",
        distinct=6,
    ),
    Shape(
        "openvpn-key",
        "OpenVPN static key",
        (b"OpenVPN tls-crypt-v2",),
        rb"-----BEGIN OpenVPN tls-crypt-v2 (?:client|server) key-----(?:\s|\\+[nr]){1,4}(?P<value>[A-Za-z0-9+/]{40})",
        distinct=6,
    ),
    Shape(
        "wireguard-key",
        "WireGuard private key",
        (b"PrivateKey", b"PresharedKey", b"PreSharedKey"),
        rb"(?:PrivateKey|Pre[sS]haredKey)[ \t]{0,8}=[ \t]{0,8}(?P<value>[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)",
        entropy=3.5,
    ),
    # Cloud providers
    Shape(
        "aws-access-key",
        "AWS access key id",
        (b"AKIA", b"ASIA", b"ABIA", b"ACCA", b"A3T"),
        rb"(?:A[KS]IA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",
        before=rb"[A-Za-z0-9+/]",
        after=rb"[A-Za-z0-9+/=]",
        distinct=6,
    ),
    Shape(
        "aws-unique-id",
        "AWS unique identifier",
        (b"AGPA", b"AIDA", b"AROA", b"AIPA", b"ANPA", b"ANVA"),
        rb"(?:AGPA|AIDA|AROA|AIPA|ANPA|ANVA)[A-Z0-9]{16}",
        before=rb"[A-Za-z0-9+/]",
        after=rb"[A-Za-z0-9+/=]",
        distinct=6,
        identifier=True,
    ),
    Shape(
        "aws-secret-key",
        "AWS secret access key",
        (b"aws_secret_access_key", b"AWS_SECRET_ACCESS_KEY"),
        rb"(?i)aws_secret_access_key\\*[\"']?[\t-\r ]*[=:][\t-\r ]*\\*[\"']?"
        rb"(?:[A-Za-z0-9/+]|\\+/|\\+u002[fF]|%2[bBfF]){40}",
        after=rb"[A-Za-z0-9/+=]",
    ),
    Shape(  # the names that SDKs, STS and infrastructure code give it
        "aws-secret-key",
        "AWS secret access key",
        (b"ecret", b"ECRET", b"aws_key", b"AWS_KEY", b"aws_access_key", b"AWS_ACCESS_KEY", b"aws_sec_key"),
        rb"(?:(?:aws|AWS)_?(?:[Ss]ec(?:ret)?|SEC(?:RET)?)_?(?:[Aa]ccess|ACCESS)?_?(?:[Kk]ey|KEY)"
        rb"|(?:aws|AWS)_(?:(?:access|ACCESS)_)?(?:key|KEY)|[Ss]ecretAccessKey|[Ss]ecret_access_key)"
        rb"[ \t\"'\\]{0,4}(?:=>|[=:,])[ \t\"'\\]{0,6}(?P<value>[A-Za-z0-9/+]{40})",
        after=rb"[A-Za-z0-9/+=]",
        entropy=3.5,
    ),
    token("aws-bedrock-key", "Amazon Bedrock API key", "ABSKQmVkcm9ja0FQSUtleS", r"[A-Za-z0-9+/]{40,300}"),
    Shape(
        "amazon-mws-token",
        "Amazon Marketplace token",
        (b"amzn.mws.",),
        rb"amzn\.mws\.[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        distinct=6,
    ),
    Shape(
        "azure-storage-key",
        "Azure storage key",
        (b"AccountKey",),
        rb"AccountKey(?:=|%3D|\\u003[dD])(?:[A-Za-z0-9+/]|\\+/|\\+u002[bBfF]|%2[bBfF]){86}(?:=|%3D|\\u003[dD]){2}",
        coarse=(rb"AccountKey(?:=|%3D|\\u003[dD])",),
    ),
    Shape(
        "azure-client-secret",
        "Microsoft Entra client secret",
        (b"Q~",),
        rb"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}",
        before=rb"[A-Za-z0-9_~.-]",
        after=rb"[A-Za-z0-9_~.-]",
        entropy=3.0,
    ),
    Shape(
        "google-service-account",
        "Google service account key",
        (b"private_key_id",),
        rb'"private_key_id\\*"[\t-\r ]*:[\t-\r ]*\\*"[a-f0-9]{40}\\*"',
    ),
    Shape(
        "google-api-key",
        "Google API key",
        (b"AIza",),
        rb"AIza[A-Za-z0-9_-]{35}",
        before=rb"[A-Za-z0-9_-]",
        after=rb"[A-Za-z0-9_-]",
    ),
    token("google-oauth-secret", "Google OAuth secret", "GOCSPX-", r"[\w-]{28}", after=_NOT_URL),
    token("google-oauth-token", "Google OAuth access token", "ya29.", r"[\w-]{60,}", distinct=10),
    token("alibaba-access-key", "Alibaba Cloud access key id", "LTAI", _ALNUM + "{20}"),
    shape_with_name("alibaba-secret-key", "Alibaba Cloud secret key", "alibaba aliyun alicloud", _ALNUM + "{30}"),
    token("digitalocean-token", "DigitalOcean token", "dop_v1_ doo_v1_ dor_v1_", _HEX + "{64}"),
    shape_with_name(
        "yandex-token",
        "Yandex Cloud token",
        "yandex",
        r"t1\.[\w-]+={0,2}\.[\w-]{86}={0,2}|AQVN[\w-]{35,38}|YC[\w-]{38}",
    ),
    token("flyio-token", "Fly.io token", "fo1_", r"[\w-]{43}", after=_NOT_URL),
    token("flyio-token", "Fly.io token", "fm1a_ fm1r_ fm2_", r"[A-Za-z0-9+/]{100,}", distinct=10),
    token("heroku-key", "Heroku API key", "HRKU-AA", r"[\w-]{58}", after=_NOT_URL),
    shape_with_name("heroku-key", "Heroku API key", "heroku", _UUID),
    token("scalingo-token", "Scalingo token", "tk-us-", r"[\w-]{48}", before=_NOT_URL, after=_NOT_URL),
    token("planetscale-token", "PlanetScale credential", "pscale_tkn_ pscale_pw_ pscale_oauth_", r"[\w=.-]{32,64}"),
    shape_with_name("netlify-token", "Netlify token", "netlify", r"nfp_[A-Za-z0-9]{36}|[\w=-]{40,46}"),
    token("netlify-token", "Netlify token", "nfp_", _ALNUM + "{36}"),
    token("supabase-token", "Supabase token", "sbp_", "[a-f0-9]{40}"),
    token("clickhouse-key", "ClickHouse Cloud API secret", "4b1d", _ALNUM + "{38}", distinct=12),
    token("openshift-token", "OpenShift user token", "sha256~", r"[\w-]{43}", after=_NOT_URL, distinct=12),
    # Network and delivery
    shape_with_name("cloudflare-key", "Cloudflare API key", "cloudflare", r"[\w-]{40}|[a-f0-9]{37}"),
    token(
        "cloudflare-origin-ca-key", "Cloudflare origin CA key", "v1.0-", "[a-f0-9]{24}-[a-f0-9]{146}", before=_NOT_URL
    ),
    shape_with_name("fastly-token", "Fastly API token", "fastly", r"[\w=-]{32}"),
    shape_with_name("meraki-key", "Cisco Meraki API key", "meraki", "[0-9a-f]{40}"),
    Shape(
        "defined-networking-token",
        "Defined Networking token",
        (b"dnkey-",),
        rb"dnkey-[A-Za-z0-9=_-]{26}-[A-Za-z0-9=_-]{52}",
        before=rb"[A-Za-z0-9_-]",
        distinct=8,
    ),
    token(
        "tailscale-key", "Tailscale key", "tskey-", r"[a-z]{3,10}-[A-Za-z0-9]{8,20}-[A-Za-z0-9]{20,40}", before=_NOT_URL
    ),
    Shape(
        "maxmind-key",
        "MaxMind license key",
        (b"_mmk",),
        rb"[A-Za-z0-9]{6}_[A-Za-z0-9]{29}_mmk",
        before=rb"[A-Za-z0-9_]",
        after=rb"[A-Za-z0-9_]",
        distinct=8,
    ),
    shape_with_name("finnhub-token", "Finnhub token", "finnhub", _ALNUM + "{20}"),
    # Source code, packages and delivery pipelines
    Shape(
        "github-token",
        "GitHub token",
        (b"ghp_", b"gho_", b"ghs_", b"ghu_", b"ghr_", b"github_pat_"),
        rb"(?:gh[oprsu]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})",
        before=rb"[A-Za-z0-9_]",  # mangled names of C++
    ),
    Shape("gitlab-token", "GitLab token", (b"glpat-",), rb"glpat-[A-Za-z0-9_-]{20,}"),
    token(
        "gitlab-token",
        "GitLab token",
        "gldt- glft- glffct- glrt- glsoat- glptt- glimt- glagent- gloas-",
        r"[\w-]{20,}",
        before=_NOT_URL,
        distinct=8,
    ),
    token("gitlab-token", "GitLab token", "glcbt-", r"[A-Za-z0-9]{1,5}_[\w-]{20}", before=_NOT_URL, after=_NOT_URL),
    token("gitlab-token", "GitLab token", "GR1348941", r"[\w-]{20}", after=_NOT_URL, distinct=10),
    token("gitlab-session", "GitLab session cookie", "_gitlab_session=", "[0-9a-z]{32}", before=""),
    shape_with_name("bitbucket-secret", "Bitbucket client secret", "bitbucket", r"[\w=-]{64}"),
    shape_with_name("bitbucket-client-id", "Bitbucket client id", "bitbucket", _ALNUM + "{32}", identifier=True),
    token("bitbucket-app-password", "Bitbucket app password", "ATBB", _ALNUM + "{32}", distinct=10),
    token("bitbucket-token", "Bitbucket access token", "ATCTT3xFf", r"[\w=-]{150,}", after=""),
    Shape("atlassian-token", "Atlassian token", (b"ATATT3",), rb"ATATT3[\w=-]{180,}"),
    shape_with_name(
        "atlassian-token", "Atlassian token", "atlassian confluence jira", _ALNUM + "{24}", before="[A-Za-z]", bits=3.3
    ),
    Shape(
        "npm-token", "npm token", (b"npm_",), rb"npm_[A-Za-z0-9]{36}", before=rb"[A-Za-z0-9_]", after=rb"[A-Za-z0-9]"
    ),
    Shape("pypi-token", "PyPI token", (b"pypi-AgE",), rb"pypi-AgE[A-Za-z0-9_-]{60,}"),
    token("rubygems-token", "RubyGems token", "rubygems_", "[a-f0-9]{48}"),
    token("clojars-token", "Clojars token", "CLOJARS_ clojars_", _ALNUM + "{60}"),
    token("packagist-token", "Private Packagist token", "packagist_", r"[ou][ru]t_[A-Fa-f0-9]{68}"),
    Shape(
        "nuget-password",
        "NuGet feed password",
        (b"Password",),
        rb"<add key=\"(?:ClearText)?Password\"[ \t]{0,8}value=\"(?P<value>[^\"%\r\n]{8,200})\"",
        distinct=5,
    ),
    Shape("docker-token", "Docker Hub token", (b"dckr_pat_", b"dckr_oat_"), rb"dckr_[po]at_[A-Za-z0-9_-]{27,}"),
    token("artifactory-key", "JFrog Artifactory API key", "AKCp", _ALNUM + "{69}", distinct=12),
    token("artifactory-reference-token", "JFrog reference token", "cmVmd", _ALNUM + "{59}", distinct=12),
    shape_with_name(
        "jfrog-token",
        "JFrog token",
        "jfrog artifactory bintray xray",
        _ALNUM + "{73}|" + _ALNUM + "{64}",
        before="[A-Za-z]",
    ),
    token("octopus-key", "Octopus Deploy API key", "API-", "[A-Z0-9]{26}", before=_NOT_URL, after=_NOT_URL, distinct=8),
    shape_with_name("codecov-token", "Codecov token", "codecov", _UUID + "|" + _ALNUM + "{32}"),
    shape_with_name("droneci-token", "Drone CI token", "droneci drone_ci", _ALNUM + "{32}"),
    shape_with_name("travis-token", "Travis CI token", "travis", _ALNUM + "{22}"),
    shape_with_name("sonar-token", "SonarQube token", "sonar", r"[\w=-]{40}|sq[uap]_[a-f0-9]{40}", bits=3.3),
    token("sonar-token", "SonarQube token", "squ_ sqp_ sqa_", "[a-f0-9]{40}"),
    shape_with_name("snyk-token", "Snyk token", "snyk", _UUID),
    token("sourcegraph-token", "Sourcegraph token", "sgp_", r"(?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}"),
    shape_with_name("sourcegraph-token", "Sourcegraph token", "sourcegraph", "[a-fA-F0-9]{40}"),
    token("harness-key", "Harness token", "pat. sat.", r"[\w-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}"),
    token(
        "terraform-token", "HCP Terraform token", ".atlasv1.", r"[\w=-]{60,70}", before="", after=_NOT_URL, distinct=12
    ),
    Shape(
        "vault-token",
        "Vault token",
        (b"hvs.", b"hvb.", b"hvr."),
        rb"hv[sbr]\.[A-Za-z0-9_-]{90,}",
        before=rb"[A-Za-z0-9]",
    ),
    shape_with_name("vault-token", "Vault token", "vault_token", r"s\.[A-Za-z0-9]{24}"),
    token("pulumi-token", "Pulumi token", "pul-", "[a-f0-9]{40}"),
    token("infracost-key", "Infracost API key", "ico-", _ALNUM + "{32}", before=_NOT_URL, distinct=10),
    token("prefect-token", "Prefect token", "pnu_ pnb_", _ALNUM + "{36}"),
    token(
        "doppler-token",
        "Doppler token",
        "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.",
        r"(?:[a-z0-9_-]{2,35}\.)?[A-Za-z0-9]{40,44}",
    ),
    token(
        "onepassword-service-account", "1Password service account token", "ops_eyJ", "[A-Za-z0-9+/]{250,}", distinct=12
    ),
    Shape(
        "onepassword-secret-key",
        "1Password secret key",
        (b"A3-",),
        rb"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
        before=rb"[A-Za-z0-9_-]",
        after=rb"[A-Za-z0-9_-]",
        entropy=3.5,
    ),
    token("readme-key", "ReadMe API key", "rdme_", "[a-z0-9]{70}"),
    token("postman-key", "Postman API key", "PMAK-", "[a-fA-F0-9]{24}-[a-fA-F0-9]{34}"),
    shape_with_name("rapidapi-key", "RapidAPI key", "rapidapi", r"[\w-]{50}"),
    token("settlemint-token", "SettleMint token", "sm_aat_ sm_pat_ sm_sat_", _ALNUM + "{16}"),
    Shape(
        "sidekiq-credential",
        "Sidekiq credential",
        (b"CONTRIBSYS__COM", b"contribsys__com", b"contribsys.com"),
        rb"(?:BUNDLE_(?:ENTERPRISE|GEMS)__CONTRIBSYS__COM|bundle_(?:enterprise|gems)__contribsys__com)"
        rb"[ \t\"'\\]{0,4}[=:][ \t\"'\\]{0,6}[a-f0-9]{8}:[a-f0-9]{8}"
        rb"|https?://[a-f0-9]{8}:[a-f0-9]{8}@(?:gems|enterprise)\.contribsys\.com",
        distinct=6,
    ),
    token("linear-key", "Linear API key", "lin_api_", _ALNUM + "{40}"),
    shape_with_name("linear-secret", "Linear client secret", "linear", "[a-f0-9]{32}", before="[A-Za-z_-]"),
    token("notion-token", "Notion token", "ntn_", r"[0-9]{11}[A-Za-z0-9]{35}"),
    token("launchdarkly-key", "LaunchDarkly key", "sdk- api-", _UUID, before=_NOT_URL, after=_NOT_URL),
    shape_with_name("launchdarkly-key", "LaunchDarkly key", "launchdarkly", r"[\w=-]{40}", bits=3.5),
    shape_with_name("asana-secret", "Asana client secret", "asana", _ALNUM + "{32}", before="[A-Za-z]"),
    shape_with_name(
        "asana-client-id", "Asana client id", "asana", "[0-9]{16}", before="[A-Za-z]", bits=2.0, identifier=True
    ),
    token("ionic-token", "Ionic token", "ion_", "[A-Za-z0-9]{42}"),
    # Artificial intelligence
    Shape(
        "huggingface-token",
        "Hugging Face token",
        (b"hf_",),
        rb"hf_[A-Za-z0-9]{34,40}",
        before=rb"\w",
        after=rb"\w",
        distinct=10,
    ),
    token("huggingface-token", "Hugging Face token", "api_org_", "[A-Za-z]{34}"),
    Shape("anthropic-key", "Anthropic key", (b"sk-ant-",), rb"sk-ant-[a-z0-9]+-[\w-]{80,}"),
    Shape(
        "openai-key",
        "OpenAI key",
        (b"sk-proj-", b"T3BlbkFJ"),
        rb"sk-(?:(?:proj|svcacct|admin|None)-)?[\w-]{20,200}T3BlbkFJ[\w-]{20,200}",
        coarse=(rb"T3BlbkFJ[\w-]{20}",),
    ),
    shape_with_name("cohere-token", "Cohere token", "cohere co_api_key", _ALNUM + "{40}", before="[A-Za-z]", bits=4.0),
    token("perplexity-key", "Perplexity key", "pplx-", _ALNUM + "{48}"),
    shape_with_name("privateai-token", "Private AI token", "privateai private_ai private-ai", _ALNUM + "{32}"),
    token("groq-key", "Groq key", "gsk_", _ALNUM + "{52}"),
    token("replicate-token", "Replicate token", "r8_", _ALNUM + "{37}", distinct=12),
    token("xai-key", "xAI key", "xai-", _ALNUM + "{80}", distinct=12),
    token("databricks-token", "Databricks token", "dapi", r"[a-h0-9]{32}(?:-\d)?"),
    # Observation and logs
    token("grafana-service-account-token", "Grafana service account token", "glsa_", r"[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}"),
    token("grafana-cloud-token", "Grafana Cloud token", "glc_", r"[A-Za-z0-9+/]{32,400}={0,3}", distinct=12),
    token("grafana-api-key", "Grafana API key", "eyJrIjoi", r"[\w=-]{70,400}", after="", distinct=12),
    token("dynatrace-token", "Dynatrace token", "dt0c01.", r"[A-Za-z0-9]{24}\.[A-Za-z0-9]{64}"),
    shape_with_name("datadog-key", "Datadog key", "datadog dd_api_key dd_app_key", "[a-z0-9]{40}|[a-f0-9]{32}"),
    token("newrelic-key", "New Relic key", "NRAK- NRII-", r"[A-Za-z0-9-]{27,32}", before=_NOT_URL),
    token("newrelic-browser-key", "New Relic browser key", "NRJS-", "[a-f0-9]{19}", before=_NOT_URL, identifier=True),
    shape_with_name("newrelic-id", "New Relic user API id", "newrelic new_relic new-relic", _ALNUM + "{64}"),
    token("sentry-token", "Sentry token", "sntryu_", "[a-f0-9]{64}"),
    token(
        "sentry-token",
        "Sentry token",
        "sntrys_eyJ",
        r"[A-Za-z0-9+/]{50,500}={0,2}_[A-Za-z0-9+/]{43}",
        after="[A-Za-z0-9+/]",
    ),
    shape_with_name("sentry-token", "Sentry token", "sentry", "[a-f0-9]{64}"),
    shape_with_name("sumologic-key", "Sumo Logic access key", "sumo", _ALNUM + "{64}", before="[A-Za-z]"),
    shape_with_name(
        "sumologic-access-id",
        "Sumo Logic access id",
        "sumo",
        "su[A-Za-z0-9]{12}",
        before="[A-Za-z]",
        bits=2.8,
        identifier=True,
    ),
    shape_with_name("confluent-secret", "Confluent secret", "confluent", _ALNUM + "{64}"),
    shape_with_name("confluent-key", "Confluent access key", "confluent", _ALNUM + "{16}", bits=2.8, identifier=True),
    shape_with_name("algolia-key", "Algolia API key", "algolia", _ALNUM + "{32}"),
    # Messages
    Shape(
        "slack-token",
        "Slack token",
        (b"xox", b"xapp-"),
        rb"(?:xox[abeoprs]-(?:\d-)?(?:[0-9]{8,}-[A-Za-z0-9-]{10,}|[A-Za-z0-9]{10,48})"
        rb"|xoxe\.xox[bp]-\d-[A-Za-z0-9]{100,}|xapp-\d-[A-Z0-9]{8,}-\d+-[a-f0-9]{30,})",
        before=rb"[A-Za-z0-9_]",
        distinct=8,
    ),
    Shape(
        "slack-webhook",
        "Slack webhook",
        (b"hooks.slack.com",),
        rb"hooks\.slack\.com(?:\\*/|%2F)(?:services(?:\\*/|%2F)T[A-Z0-9]{8,}(?:\\*/|%2F)B[A-Z0-9]{8,}"
        rb"(?:\\*/|%2F)[A-Za-z0-9]{20,}|(?:services|workflows|triggers)(?:\\*/|%2F)[A-Za-z0-9+/]{43,56})",
    ),
    Shape(
        "teams-webhook",
        "Microsoft Teams webhook",
        (b"webhook.office.com",),
        rb"[a-z0-9-]{1,60}\.webhook\.office\.com/webhookb2/[a-f0-9]{8}-[a-f0-9-]{27}@[a-f0-9-]{36}/IncomingWebhook/"
        rb"[a-zA-Z0-9]{32}/[a-f0-9-]{36}",
        coarse=(rb"\.webhook\.office\.com/webhookb2/",),
        distinct=10,
    ),
    Shape(
        "discord-webhook",
        "Discord webhook",
        (b"/api/webhooks/",),
        rb"discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,}",
        distinct=10,
    ),
    shape_with_name(
        "discord-token", "Discord token", "discord", r"[a-h0-9]{64}|[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,38}"
    ),
    shape_with_name("discord-secret", "Discord client secret", "discord", r"[\w=-]{32}", bits=3.3),
    shape_with_name("discord-client-id", "Discord client id", "discord", "[0-9]{17,19}", bits=2.0, identifier=True),
    shape_with_name("telegram-token", "Telegram bot token", "telegr", r"[0-9]{5,16}:A[\w-]{34}"),
    shape_with_name("mattermost-token", "Mattermost token", "mattermost", _ALNUM + "{26}"),
    shape_with_name("gitter-token", "Gitter token", "gitter", r"[\w-]{40}", before="[A-Za-z]"),
    token("twilio-key", "Twilio API key", "SK", _HEX + "{32}", distinct=8),
    Shape(
        "sendgrid-key",
        "SendGrid key",
        (b"SG.",),
        rb"SG\.(?:[\w-]{22}\.[\w-]{43}|[\w.-]{66})",
        before=rb"[\w.]",
        after=rb"[\w-]",
        distinct=3,
    ),
    token("sendinblue-key", "Brevo (Sendinblue) API key", "xkeysib- xsmtpsib-", "[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    shape_with_name("mailchimp-key", "Mailchimp API key", "mailchimp", r"[a-f0-9]{32}-us\d{1,2}"),
    shape_with_name("mailgun-key", "Mailgun API key", "mailgun", "(?:pub)?key-[a-f0-9]{32}"),
    shape_with_name("mailgun-signing-key", "Mailgun signing key", "mailgun", "[a-h0-9]{32}-[a-h0-9]{8}-[a-h0-9]{8}"),
    shape_with_name("messagebird-key", "MessageBird API key", "messagebird message_bird message-bird", _ALNUM + "{25}"),
    shape_with_name(
        "messagebird-client-id",
        "MessageBird client id",
        "messagebird message_bird message-bird",
        "[a-h0-9]{8}(?:-[a-h0-9]{4}){3}-[a-h0-9]{12}",
        identifier=True,
    ),
    shape_with_name("sendbird-token", "Sendbird token", "sendbird", "[a-f0-9]{40}"),
    shape_with_name("sendbird-id", "Sendbird access id", "sendbird", _UUID, identifier=True),
    shape_with_name("beamer-token", "Beamer token", "beamer", r"b_[\w=-]{44}", before="[A-Za-z]"),
    shape_with_name("intercom-token", "Intercom token", "intercom", r"[A-Za-z0-9=_-]{60}"),
    shape_with_name(
        "intercom-secret", "Intercom client secret", "intercom", "[a-h0-9]{8}(?:-[a-h0-9]{4}){3}-[a-h0-9]{12}"
    ),
    shape_with_name("zendesk-key", "Zendesk secret key", "zendesk", _ALNUM + "{40}", bits=3.3),
    # Payments and trade
    Shape(
        "stripe-key",
        "Stripe live key",
        (b"_live_", b"_prod_"),
        rb"[sr]k_(?:live|prod)_[A-Za-z0-9]{10,200}",
        before=rb"[A-Za-z0-9_]",
        distinct=6,
    ),
    token("stripe-test-key", "Stripe test key", "sk_test_ rk_test_", _ALNUM + "{10,200}", distinct=6, identifier=True),
    token(
        "stripe-publishable-key",
        "Stripe publishable key",
        "pk_live_ pk_test_",
        _ALNUM + "{10,200}",
        distinct=6,
        identifier=True,
    ),
    token("stripe-webhook-secret", "Stripe webhook secret", "whsec_", r"[A-Za-z0-9+/]{32,80}", distinct=10),
    token("square-token", "Square access token", "sq0atp- sq0csp-", r"[\w-]{22,60}", after=_NOT_URL),
    token(
        "square-token",
        "Square access token",
        "EAAA",
        r"[\w-]{60}",
        after=_NOT_URL,
        before=r"[A-Za-z0-9_+/-]",
        distinct=16,
    ),
    token("shopify-token", "Shopify token", "shpss_ shpat_ shpca_ shppa_", _HEX + "{32}"),
    token("flutterwave-key", "Flutterwave key", "FLWSECK_TEST- FLWPUBK_TEST- FLWSECK- FLWPUBK-", "[A-Ha-h0-9]{32}-X"),
    token("flutterwave-encryption-key", "Flutterwave encryption key", "FLWSECK_TEST FLWSECK_TEST-", "[A-Ha-h0-9]{12}"),
    shape_with_name("gocardless-token", "GoCardless token", "gocardless", r"live_[\w=-]{40}"),
    token(
        "gocardless-token", "GoCardless token", "live_", r"[\w=-]{40}", before=_NOT_URL, after=r"[\w=-]", distinct=14
    ),
    token("duffel-token", "Duffel token", "duffel_test_ duffel_live_", r"[\w=-]{43}", after=""),
    token("easypost-token", "EasyPost key", "EZAK EZTK EZAT", _ALNUM + "{54}", distinct=12),
    token("shippo-token", "Shippo token", "shippo_live_ shippo_test_", _HEX + "{40}"),
    shape_with_name(
        "plaid-token",
        "Plaid access token",
        "plaid",
        "access-(?:sandbox|development|production)-" + _UUID,
        before="[A-Za-z]",
    ),
    shape_with_name("plaid-secret", "Plaid secret", "plaid", _ALNUM + "{30}", before="[A-Za-z]", bits=3.3),
    shape_with_name(
        "plaid-client-id", "Plaid client id", "plaid", _ALNUM + "{24}", before="[A-Za-z]", bits=3.3, identifier=True
    ),
    shape_with_name("finicity-token", "Finicity token", "finicity", "[a-f0-9]{32}|[A-Za-z0-9]{20}"),
    shape_with_name("coinbase-token", "Coinbase token", "coinbase", r"[\w-]{64}", bits=3.5),
    shape_with_name("kraken-token", "Kraken token", "kraken", r"[A-Za-z0-9/=_+-]{80,90}", bits=3.5),
    shape_with_name("kucoin-secret", "KuCoin secret", "kucoin", _UUID + "|[a-f0-9]{24}"),
    shape_with_name("bittrex-key", "Bittrex key", "bittrex", _ALNUM + "{32}"),
    shape_with_name("freshbooks-token", "FreshBooks token", "freshbooks", _ALNUM + "{64}"),
    shape_with_name("etsy-token", "Etsy token", "etsy", _ALNUM + "{24}", before="[A-Za-z]", bits=3.3),
    Shape(
        "lob-key",
        "Lob API key",
        (b"live_", b"test_"),
        rb"(?:live|test)_(?:[a-f0-9]{35}|pub_[a-f0-9]{31})",
        before=rb"[A-Za-z0-9_-]",
        after=rb"[A-Za-z0-9_-]",
        distinct=6,
    ),
    Shape(
        "freemius-key",
        "Freemius secret key",
        (b"secret_key",),
        rb"[\"']secret_key[\"'][ \t]{0,8}=>[ \t]{0,8}[\"'](?P<value>sk_[^\t-\r \"']{29})[\"']",
        distinct=8,
    ),
    # Identity
    Shape(
        "okta-token",
        "Okta token",
        (b"okta", b"Okta", b"OKTA"),
        rb"(?:okta|Okta|OKTA)[\w .,-]{0,25}[ \t\"'`\\\])]{0,4}(?:=>|[=:,>(])[ \t\"'`\\=(\[{]{0,6}"
        rb"(?P<value>00[\w-]{40})",
        before=rb"[A-Za-z]",
        after=rb"[A-Za-z0-9_-]",
        entropy=3.5,
    ),
    Shape(
        "authress-key",
        "Authress service client key",
        (b".acc_", b".acc-"),
        rb"(?:sc|ext|scauth|authress)_[A-Za-z0-9]{5,30}\.[A-Za-z0-9]{4,6}\.acc[_-][A-Za-z0-9-]{10,32}\.[A-Za-z0-9+/_=-]{30,120}",
        before=rb"[A-Za-z0-9_]",
        distinct=10,
    ),
    Shape(
        "intra42-secret",
        "42 intranet client secret",
        (b"s-s4t2",),
        rb"s-s4t2(?:ud|af)-[a-fA-F0-9]{64}",
        before=rb"[A-Za-z0-9_]",
        after=rb"[A-Za-z0-9_]",
        distinct=6,
    ),
    Shape(  # RFC 7519: header and payload are JSON objects; expired or not, it shows who signs what
        "jwt",
        "JSON Web Token",
        (b".eyJ", b".ewog"),
        rb"ey[A-Za-z0-9_-]{17,}\.ey[A-Za-z0-9_-]{17,}\.[A-Za-z0-9_-]{10,}",
        before=rb"[A-Za-z0-9_.-]",
        coarse=(rb"\.eyJ[A-Za-z0-9_-]{17}", rb"\.ewog[A-Za-z0-9_-]{17}"),
        entropy=3.5,
    ),
    # Social networks, media and others
    shape_with_name("facebook-secret", "Facebook app secret", "facebook", "[a-f0-9]{32}"),
    Shape(
        "facebook-token",
        "Facebook access token",
        (b"EAAM", b"EAAC", b"EAAG", b"EAAB"),
        rb"EAA[MCGB][A-Za-z0-9]{100,}",
        before=rb"[A-Za-z0-9_+/-]",
        after=rb"[A-Za-z0-9_+/=-]",
        entropy=4.0,
    ),
    shape_with_name("facebook-token", "Facebook access token", "facebook fb_", r"\d{15,16}(?:\||%7C)[\w-]{27,40}"),
    shape_with_name(
        "twitter-token",
        "X (Twitter) token",
        "twitter",
        r"[a-f0-9]{35,44}|\d{15,25}-[A-Za-z0-9]{20,40}|[A-Za-z0-9]{45}|[A-Za-z0-9]{50}",
    ),
    shape_with_name("twitter-bearer-token", "X (Twitter) bearer token", "twitter", r"A{22}[A-Za-z0-9%]{80,100}"),
    shape_with_name("twitter-key", "X (Twitter) API key", "twitter", _ALNUM + "{25}"),
    shape_with_name(
        "linkedin-secret",
        "LinkedIn client secret",
        "linkedin linked_in linked-in",
        _ALNUM + "{16}|WPL_AP\\d\\.[A-Za-z0-9=.]{16,40}",
        bits=2.8,
    ),
    shape_with_name(
        "linkedin-client-id",
        "LinkedIn client id",
        "linkedin linked_in linked-in",
        _ALNUM + "{14}",
        bits=2.8,
        identifier=True,
    ),
    shape_with_name("twitch-token", "Twitch token", "twitch", _ALNUM + "{30}", before="[A-Za-z]"),
    shape_with_name("flickr-token", "Flickr token", "flickr", _ALNUM + "{32}"),
    token("frameio-token", "Frame.io token", "fio-u-", r"[\w=-]{64}", before=_NOT_URL, after=""),
    shape_with_name("dropbox-token", "Dropbox token", "dropbox", r"sl\.[\w=-]{135,}|[a-z0-9]{11}A{10}[\w=-]{43}"),
    shape_with_name("dropbox-secret", "Dropbox app secret", "dropbox", "[a-z0-9]{15}", bits=2.8),
    token("mapbox-secret-token", "Mapbox secret token", "sk.eyJ1Ijoi", r"[\w-]{30,200}\.[\w-]{22}", after=_NOT_URL),
    Shape(
        "mapbox-token",
        "Mapbox public token",
        (b"pk.",),
        rb"pk\.(?:eyJ1Ijoi[\w-]{30,200}\.[\w-]{22}|[A-Za-z0-9]{60}\.[A-Za-z0-9]{22})",
        before=rb"[A-Za-z0-9_]",
        after=rb"[A-Za-z0-9_-]",
        distinct=10,
        identifier=True,
    ),
    token("hubspot-token", "HubSpot token", "pat-na1- pat-na2- pat-eu1- pat-ap1-", _UUID, before=_NOT_URL),
    shape_with_name(
        "hubspot-key", "HubSpot API key", "hubspot", "[A-Ha-h0-9]{8}(?:-[A-Ha-h0-9]{4}){3}-[A-Ha-h0-9]{12}"
    ),
    token("typeform-token", "Typeform token", "tfp_", r"[\w.=-]{40,59}", after=""),
    shape_with_name("contentful-token", "Contentful token", "contentful", r"CFPAT-[\w-]{43}|[\w=-]{43}", bits=3.5),
    token("adobe-secret", "Adobe client secret", "p8e-", _ALNUM + "{32}", before=_NOT_URL),
    shape_with_name("adobe-client-id", "Adobe client id", "adobe", "[a-f0-9]{32}", identifier=True),
    shape_with_name("airtable-key", "Airtable API key", "airtable", _ALNUM + "{17}", bits=2.8),
    Shape(
        "airtable-token",
        "Airtable token",
        (b"pat",),
        rb"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}",
        before=rb"[A-Za-z0-9_]",
        after=rb"[A-Za-z0-9_]",
        distinct=10,
    ),
    token("adafruit-key", "Adafruit IO key", "aio_", _ALNUM + "{28}", distinct=10),
    shape_with_name("adafruit-key", "Adafruit IO key", "adafruit", r"[\w-]{32}", bits=3.3),
    shape_with_name(
        "nytimes-token", "New York Times API key", "nytimes newyorktimes new-york-times", r"[\w=-]{32}", bits=3.3
    ),
    shape_with_name("squarespace-token", "Squarespace token", "squarespace", _UUID),
    # Encryption
    Shape(
        "age-key",
        "age key",
        (b"AGE-SECRET-KEY-",),
        rb"AGE-SECRET-KEY-(?:PQ-)?1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}",
    ),
    Shape(  # programs that write such files contain the header without the lines of a key
        "putty-key",
        "PuTTY private key",
        (b"PuTTY-User-Key-File-",),
        rb"PuTTY-User-Key-File-[23]: [A-Za-z0-9@.-]{3,60}[\r\n\\][^\x00]{0,8000}?"
        rb"Private-Lines: [0-9]{1,3}[\\\t-\r rn]{1,8}[A-Za-z0-9+/]{16}",
        coarse=(rb"PuTTY-User-Key-File-[23]: [A-Za-z0-9@.-]{3}",),
    ),
)

IDENTIFIERS = tuple(dict.fromkeys(shape.title for shape in SHAPES if shape.identifier))
"""Titles of kinds that grant little by themselves."""

# Values that everybody has, so they protect nothing: keys with which libraries test themselves when they start (FIPS
# 140-3, 10.3.A), and examples. Digests of the first 40 characters of a key's base64, or of another value or a key store
# as a whole.
PUBLISHED = frozenset(
    (
        "fead0c14dbce4ab6",  # GnuTLS
        "9b077de168d7ad0e",  # GnuTLS
        "fd8c3219fdfbdf0d",  # GnuTLS
        "e33be1511dbfb341",  # GnuTLS
        "315ee82a4447b5bc",  # GnuTLS
        "8b71ffb0259605c0",  # GnuTLS
        "98d1a56d3f67e209",  # GnuTLS
        "ac33b0d6f8f358d5",  # GnuTLS
        "4fa319eab6bb5b20",  # GnuTLS
        "0ba1b8671a441db2",  # GnuTLS
        "afa8e6be5d09b65f",  # moto
        "a957fb8c8a3e3e7b",  # CMake's template of Windows applications
        "ae4185b2f0bb1af0",  # Jetty's example
        "2e86e11dcad05c24",  # joserfc
        "8b1b17a9740c068a",  # RFC 7515, A.1.1
        "57afc11665beb68d",  # RFC 7517, A.3
    )
)


def kinds_table() -> str:
    """Return the list of kinds for ``docs/secrets.md``."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for shape in SHAPES:
        by_name = "name" in shape.pattern.groupindex
        words = dict.fromkeys(anchor.lower() if by_name else anchor for anchor in shape.anchors)
        spelled = ", ".join(f"`{word.decode()}`" for word in words)
        title = f"{shape.title} (grants little by itself)" if shape.identifier else shape.title
        rows.setdefault(shape.rule, (title, []))[1].append(f"a setting named {spelled}" if by_name else spelled)
    lines = (f"| {title} | `{rule}` | {'; '.join(forms)} |" for rule, (title, forms) in sorted(rows.items()))
    return "\n".join(("| kind | rule | recognised by |", "| --- | --- | --- |", *lines))
