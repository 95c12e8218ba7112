"""An installed wheel brings its configs and works from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_wheel_works_from_an_empty_folder(tmp_path: Path) -> None:
    source, empty = tmp_path / "source", tmp_path / "empty"
    source.mkdir()
    empty.mkdir()
    for name in ("guardreasoner", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    installed = tmp_path / "installed" / "guardreasoner" / "configs"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == shipped
    pages = {path.relative_to(ROOT) for path in (ROOT / "guardreasoner").rglob("*.html")}
    assert {path.relative_to(tmp_path / "installed") for path in (tmp_path / "installed").rglob("*.html")} == pages

    def command(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "COLUMNS": "200"}
        words = [sys.executable, "-m", "guardreasoner", *argv]
        return subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True, check=False)

    dry = command("run", "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert "checkpoints/hsdpo" in dry.stdout
    printed = command("fit", "--config", "hsdpo", "--config", "model/lora", "--print_config")
    assert printed.returncode == 0, printed.stderr
    assert "guardreasoner.training.hsdpo.HSDPOModule" in printed.stdout
    built = command("base-model", "--config", "base")
    assert built.returncode == 0, built.stderr
    assert (empty / "checkpoints" / "base" / "config.json").is_file()
