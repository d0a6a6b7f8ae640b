"""Support periods of distributions' releases: the last day with free security fixes for everyone.

A dated table of a few distributions, looked up on 2026-11-24 and to be brought up to date with each version of
Dockwarden. Sources: Debian https://wiki.debian.org/LTS (end of long-term support), Ubuntu
https://ubuntu.com/about/release-cycle (end of standard support), Alpine https://alpinelinux.org/releases/, RHEL
https://access.redhat.com/support/policy/updates/errata (end of maintenance support), CentOS
https://www.centos.org/centos-linux-eol/, Rocky https://wiki.rockylinux.org/rocky/version/, AlmaLinux
https://wiki.almalinux.org/release-notes/, Oracle Linux https://www.oracle.com/a/ocom/docs/elsp-lifetime-069338.pdf
(premier support), Amazon Linux https://aws.amazon.com/amazon-linux-2/faqs/.

Paid extensions are not listed, because an image does not show whether they apply. For releases that are not listed the
end is unknown.
"""

from __future__ import annotations

from datetime import date
from typing import Final

from scanner.model.release import os_id

_ENDS: Final = {
    "debian": {
        "7": date(2018, 5, 31),
        "8": date(2020, 6, 30),
        "9": date(2022, 6, 30),
        "10": date(2024, 6, 30),
        "11": date(2026, 8, 31),
        "12": date(2028, 6, 30),
        "13": date(2030, 6, 30),
    },
    "ubuntu": {
        "14.04": date(2019, 4, 30),
        "16.04": date(2021, 4, 30),
        "18.04": date(2023, 5, 31),
        "20.04": date(2025, 5, 31),
        "22.04": date(2027, 6, 1),
        "22.10": date(2023, 7, 20),
        "23.04": date(2024, 1, 25),
        "23.10": date(2024, 7, 11),
        "24.04": date(2029, 5, 31),
        "24.10": date(2025, 7, 10),
    },
    "alpine": {
        "3.10": date(2021, 5, 1),
        "3.11": date(2021, 11, 1),
        "3.12": date(2022, 5, 1),
        "3.13": date(2022, 11, 1),
        "3.14": date(2023, 5, 1),
        "3.15": date(2023, 11, 1),
        "3.16": date(2024, 5, 23),
        "3.17": date(2024, 11, 22),
        "3.18": date(2025, 5, 9),
        "3.19": date(2025, 11, 1),
        "3.20": date(2026, 4, 1),
        "3.21": date(2026, 11, 1),
        "3.22": date(2027, 5, 1),
    },
    "rhel": {
        "6": date(2020, 11, 30),
        "7": date(2024, 6, 30),
        "8": date(2029, 5, 31),
        "9": date(2032, 5, 31),
        "10": date(2035, 5, 31),
    },
    "centos": {"6": date(2020, 11, 30), "7": date(2024, 6, 30), "8": date(2021, 12, 31)},
    "rocky": {"8": date(2029, 5, 31), "9": date(2032, 5, 31), "10": date(2035, 5, 31)},
    "almalinux": {"8": date(2029, 3, 1), "9": date(2032, 5, 31), "10": date(2035, 5, 31)},
    "ol": {"7": date(2024, 12, 31), "8": date(2029, 7, 31), "9": date(2032, 6, 30)},
    "amzn": {"2018.03": date(2023, 12, 31), "2": date(2026, 6, 30)},
}


def is_known(family: str, version: str) -> bool:
    """True if this table has the release."""
    return end_of_life(family, version) is not None


def end_of_life(family: str, version: str) -> date | None:
    """The last day of support of a release, by the names of engines or os-release; None if unknown.

    The release is the longest prefix of the version in the table: ``3.19.1`` is ``3.19``, ``12.8`` is ``12``.
    """
    releases = _ENDS.get(os_id(family), {})
    parts = version.split(" ")[0].split(".")
    for length in range(len(parts), 0, -1):
        found = releases.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None
