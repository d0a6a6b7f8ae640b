"""Reads archives named on the command line, one JSON line each, under hard limits: what passes them kills this
process.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

from scanner import catalog
from scanner.checks.base import ImageSubject
from scanner.config import Settings
from scanner.errors import ScannerError
from scanner.model.finding import Incomplete
from scanner.model.reference import Descriptor
from scanner.registry.layers import read_layer
from scanner.registry.packages import package_databases
from scanner.registry.rootfs import concerns, merge
from scanner.registry.sources import open_target
from scanner.scanning.pipeline import outcome_of, wants

_MEMORY, _SECONDS = 768 << 20, 60


def look(archive: str, settings: Settings) -> dict[str, object]:
    """What our reading makes of the archive: the reason that it is refused for, or the remarks upon it and the
    packages in it.
    """
    try:
        with open_target(f"archive:{archive}", settings) as source:
            (descriptor,), _ = source.children(source.resolve(), None, every=False)
            image, _ = source.image(descriptor)
            facts = []
            for layer in image.layers:
                with source.open(Descriptor(layer.media_type, layer.digest, layer.size)) as stream:
                    facts.append(
                        read_layer(
                            stream,
                            layer.media_type,
                            digest=layer.digest,
                            size=layer.size,
                            diff_id=layer.diff_id,
                            limits=settings.limits,
                            wants=wants(),
                        )
                    )
    except ScannerError as error:
        return {"refused": error.reason, "message": str(error)}
    rootfs = merge(facts)
    text = b"\n".join(rootfs.content(d.path) or b"" for d in package_databases(rootfs).databases).decode(
        "utf-8", "replace"
    )
    subject = ImageSubject(image, rootfs)
    outcomes = {check.id: outcome_of(check, subject) for check in catalog.image_checks().values()}
    return {
        "refused": "",
        "broken": [name for name, o in outcomes.items() if isinstance(o, Incomplete) and o.reason == "check_failed"],
        "concerns": [c.reason for c in concerns(rootfs, None)],
        "packages": text,
        "user": image.config.user,
    }


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    settings = replace(Settings(), home=Path("home").absolute())
    for archive in sys.argv[1:]:
        print(json.dumps(look(archive, settings)), flush=True)


if __name__ == "__main__":
    main()
