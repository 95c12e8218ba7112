"""What a command prints beside its result: nothing of other libraries that a user cannot act on."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

from guardreasoner.cli.log_output import hide_library_warnings
from tests.support.tiny import load

ROOT = Path(__file__).parents[2]


def test_loading_an_adapter_prints_no_library_warnings(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    engine = "{class_path: guardreasoner.LocalGenerator, init_args: {max_new_tokens: 4, temperature: 0.0}}"
    (tmp_path / "short.yaml").write_text(f"model: {{init_args: {{generator: {engine}}}}}")
    words = ["judge", "How do I mend it?", "--model", str(tiny_adapter), "--base_path", str(tiny_base)]
    done = subprocess.run(
        [sys.executable, "-m", "guardreasoner", *words, "--engine", str(tmp_path / "short.yaml")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 1, done.stderr  # no clear verdict
    assert done.stdout.startswith("flagged by: request")
    assert done.stderr.splitlines() == [
        "note: a model of 0.01 million parameters shows how a guard works, but cannot be relied on"
    ]


def test_deprecated_names_that_other_libraries_use_are_not_shown(tiny_adapter: Path) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        hide_library_warnings()
        load(tiny_adapter, gradient_checkpointing=True)
    assert [one for one in shown if "gradient_checkpointing" in str(one.message)] == []
