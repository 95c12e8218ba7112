"""A test file as a trial, for parts whose cases the tests know how to check."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from reliability.fits import ROOT
from reliability.part import Outcome, Trial


def suite(path: str, count: int) -> Trial:
    """Return a trial that runs a test file; its failure names the failed tests.

    Args:
        path: Test file, relative to the root of the project.
        count: Cases that the file checks.
    """
    return Trial(path, lambda folder: _run(path, count, folder / "report.xml"))


def _run(path: str, count: int, report: Path) -> Outcome:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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
