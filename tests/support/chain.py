"""A chain of three stages, for tests: a small program stands for the training verbs."""

import sys
from pathlib import Path

import pytest

from guardreasoner.workflow.pipeline import Pipeline

PROGRAM = """
import os
import sys
import time
from pathlib import Path
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.pipeline import prepare

argv = sys.argv[1:]
state = prepare(argv, launcher=(sys.executable, __file__))
config = resolve(argv).config
with open("runs.log", "a") as log:
    log.write(config["output"] + "\\n")
if "wait" in config:
    Path("pid.new").write_text(str(os.getpid()))
    Path("pid.new").rename("pid")
    time.sleep(config["wait"])
if "fail" in config:
    sys.exit(config["fail"])
sources = [Path(path) for path in config["paths"]]
text = "".join((path / "made.txt" if path.is_dir() else path).read_text() for path in sources)
output = Path(config["output"])
if "silent" not in config:
    output.mkdir(parents=True, exist_ok=True)
    (output / "made.txt").write_text(text[: config.get("limit")] + str(config["model"]["init_args"]["size"]))
if "edits" in config:
    Path(config["edits"]).write_text("edited")
state.finish()
"""

STAGE = """
recipe: {{folder: made}}
auto_build: true
output: ${{recipe.folder}}/{name}
paths: [{paths}]
model: {{class_path: some.Model, init_args: {{size: 1}}}}
trainer: {{enable_progress_bar: true, default_root_dir: "."}}
"""


def lay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Go to a folder with the stages seed.txt -> first -> second -> third and return what starts one of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "seed.txt").write_text("seed")
    (tmp_path / "program.py").write_text(PROGRAM)
    chain = {"first": "seed.txt", "second": "'${recipe.folder}/first'", "third": "'${recipe.folder}/second'"}
    for name, paths in chain.items():
        (tmp_path / "configs" / f"{name}.yaml").write_text(STAGE.format(name=name, paths=paths))
    # Out of order on purpose: the order follows from the configs.
    stages = "\n".join(f"  {name}: fit --config configs/{name}.yaml" for name in ("second", "third", "first"))
    (tmp_path / "configs" / "pipeline.yaml").write_text(f"stages:\n{stages}\n")
    return sys.executable, str(tmp_path / "program.py")


def runs() -> list[str]:
    """Return what was made since the last call, in order."""
    log = Path("runs.log")
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def load(launcher: tuple[str, ...], *overlays: str) -> Pipeline:
    """Return the pipeline of the folder."""
    return Pipeline.load(Path("configs/pipeline.yaml"), overlays, launcher)


def build(launcher: tuple[str, ...], *overlays: str) -> list[str]:
    """Build all stages and return what was made."""
    pipeline = load(launcher, *overlays)
    pipeline.build(list(pipeline.stages))
    return runs()


def change(file: str, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))
