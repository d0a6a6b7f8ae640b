"""A new engine is one new file: everything that offers engines finds it, and ``both`` stays Trivy and Clair."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
THIRD = '''
"""A third engine."""

from scanner.config import Settings
from scanner.engines.base import Engine, EngineJob
from scanner.model.finding import AdvisoryStatus, EngineReport


class ThirdEngine(Engine):
    """Finds nothing."""

    id = "third"
    title = "Third"

    def version(self, settings: Settings) -> str:
        return "1"

    def advisories(self, settings: Settings) -> AdvisoryStatus:
        return AdvisoryStatus("third")

    def scan(self, job: EngineJob) -> EngineReport:
        raise NotImplementedError
'''
ASKED = """
from scanner import catalog

print(catalog.engine_choices(), catalog.chosen_engines("both"), end=" ")
print(catalog.chosen_engines("third"), "third" in catalog.known().engines)
"""


def test_a_third_engine_is_offered_and_both_are_still_two(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scanner", tmp_path / "scanner", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "scanner" / "engines" / "third.py").write_text(THIRD)
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "('clair', 'third', 'trivy', 'both') ('trivy', 'clair') ('third',) True"
    command = [sys.executable, "-m", "scanner.cli", "scan", "oci:nowhere", "--engine", "fourth"]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "third" in refused.stderr
