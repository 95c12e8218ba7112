"""The verb ``lineage`` on the output of a real command."""

import logging
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.workflow.manifest import Manifest, manifest_path

CONFIG = Path(__file__).parents[3] / "configs" / "base.yaml"
SMALL = """
recipe: {vocabulary: 320}
hidden_size: 16
intermediate_size: 24
layers: 1
heads: 2
kv_heads: 1
data: {init_args: {source: tests.support.tiny.TinySource}}
"""


def test_a_real_command_records_its_config_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    try:
        assert main(["base-model", "--config", str(CONFIG), "--config", "small.yaml"]) == 0
    finally:
        logging.getLogger("guardreasoner").handlers.clear()
    manifest = Manifest.read("checkpoints/base")
    assert manifest is not None
    assert manifest_path("checkpoints/base").is_file()
    assert manifest.config is not None
    assert (manifest.config["hidden_size"], manifest.config["vocabulary"]) == (16, 320)
    capsys.readouterr()
    assert main(["lineage", "checkpoints/base"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith("checkpoints/base  unchanged  base-model; ")
    assert lines[0].endswith("; seed 0")
    assert lines[1] == "└── tests.support.tiny.TinySource  unchanged  code"
