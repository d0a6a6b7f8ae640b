"""Cloud registries: which credentials a registry can be given, and what a host name says about its cloud.

A cloud's credentials are exchanged for a token at addresses that follow from the registry's host. The patterns are
therefore complete host names: no other host may receive a token.
"""

from __future__ import annotations

import re

from scanner.patterns import lazy

STATIC, ECR, GAR, ACR = "static", "ecr", "gar", "acr"
KINDS = (STATIC, ECR, GAR, ACR)
NAMES = {
    STATIC: "user name and password",
    ECR: "Amazon ECR",
    GAR: "Google Artifact Registry",
    ACR: "Azure Container Registry",
}
_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+){1,3}-[0-9]{1,2})"
HOSTS = {
    # The second form is the dual-stack one (IPv4 and IPv6).
    ECR: lazy(
        rf"[0-9]{{12}}\.dkr(?:\.ecr(?P<fips>-fips)?\.{_REGION}\.amazonaws\.com(?P<china>\.cn)?"
        rf"|-ecr(?P<fips2>-fips)?\.{_REGION.replace('region', 'region2')}\.on\.aws)"
    ),
    GAR: lazy(r"(?:[a-z0-9-]{1,63}-docker\.pkg\.dev|(?:us\.|eu\.|asia\.)?gcr\.io)"),
    ACR: lazy(r"[a-z0-9-]{5,63}\.azurecr\.(?P<zone>io|cn|us)"),
}
EXAMPLES = {
    ECR: "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
    GAR: "europe-docker.pkg.dev",
    ACR: "example.azurecr.io",
}
ACCESS_KEY = r"^[A-Z0-9]{16,128}$"
# A GUID, or a domain of the tenant. It becomes part of a path.
TENANT = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"
ROLE_ARN = r"^arn:aws(-cn|-us-gov)?:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}$"
# Characters; AWS's own limit for external ids is 1224.
ROLE_ARN_LENGTH, EXTERNAL_ID_LENGTH = 600, 1224
EXTERNAL_ID = r"^[A-Za-z0-9_+=,.@:/-]{2,1224}$"
CLIENT_ID = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


def is_host(kind: str, host: str) -> bool:
    """Whether a registry with this host can have credentials of this kind."""
    return kind == STATIC or HOSTS[kind].fullmatch(host) is not None


def is_tenant(text: str) -> bool:
    """Whether ``text`` can be a tenant of Microsoft Entra ID."""
    return re.fullmatch(TENANT, text, re.ASCII) is not None
