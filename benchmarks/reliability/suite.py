"""A test file as a trial, for parts whose cases the tests know how to check."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from reliability.fits import ROOT
from reliability.part import Outcome, Trial


def suite(path: str, count: int, name: str | None = None, environment: Mapping[str, str] | None = None) -> Trial:
    """Return a trial that runs a test file with all its slow tests; its failure names the failed tests.

    Args:
        path: Test file, relative to the root of the project.
        count: Cases that the file checks.
        name: Name of the trial; None takes the path.
        environment: Variables to set.
    """
    return Trial(name or path, partial(_run, path=path, count=count, environment=environment or {}))


def _run(folder: Path, path: str, count: int, environment: Mapping[str, str]) -> Outcome:
    report = folder / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    if not report.is_file():
        return Outcome(count, f"pytest ended with {done.returncode}: {(done.stdout or done.stderr).strip()[-200:]}")
    tests = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [
        test.get("name", "?") for test in tests if test.find("failure") is not None or test.find("error") is not None
    ]
    if failed or not tests or done.returncode:
        return Outcome(count, f"{len(failed)} of {len(tests)} tests failed: {', '.join(failed[:5])}")
    return Outcome(count)
