"""The verb ``lineage``: the tree, the state of each node, and the exit code."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardreasoner.cli.main import main
from guardreasoner.workflow.config import Command
from guardreasoner.workflow.manifest import Manifest, code_hash, content_hash, manifest_path
from guardreasoner.workflow.staleness import StageState
from tests.support.output_files import rollouts

EMBEDDED = "guardreasoner.sources.embedded.Embedded"


def make(verb: str, output: str, *paths: str, text: str = "", **config: Any) -> None:
    """Make a folder with the manifest that a run on these inputs writes."""
    state = StageState.of(Command((verb, "--config", "a.yaml"), {"output": output, "paths": [*paths], **config}))
    state.begin()
    Path(output).mkdir(parents=True, exist_ok=True)
    Path(output, "made.txt").write_text(text or output)
    state.finish()


@pytest.fixture(autouse=True)
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with rows.jsonl -> base -> rsft -> two rollouts -> hsdpo, which reads rsft too."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"text": "one"}\n')
    make("base-model", "made/base", "rows.jsonl")
    make("fit", "made/rsft", "made/base", seed_everything=3, data={"init_args": {"seed": 4}})
    for name in ("one", "two"):
        make("predict", f"made/{name}", "made/rsft", model={"init_args": {"seed": 5}})
    make("fit", "made/hsdpo", "made/rsft", "made/one", "made/two")


def show(capsys: pytest.CaptureFixture[str], *paths: str, code: int = 0) -> list[str]:
    """Return the lines that the verb prints; assert its exit code."""
    capsys.readouterr()
    assert main(["lineage", *paths]) == code
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def read(capsys: pytest.CaptureFixture[str], *paths: str, code: int = 0) -> dict[str, Any]:
    """Return the same as JSON."""
    return json.loads("\n".join(show(capsys, *paths, "--json", code=code)))


def nodes(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a tree, from the top."""
    return [tree, *(node for inner in tree.get("inputs", ()) for node in nodes(inner))]


def states(content: dict[str, Any]) -> dict[str, str]:
    """Return each path of the trees with its state."""
    return {node["path"]: node["state"] for tree in content["trees"] for node in nodes(tree)}


def test_the_tree_leads_down_to_the_source_file(capsys: pytest.CaptureFixture[str]) -> None:
    lines = show(capsys, "made/hsdpo")
    assert lines[0].startswith("made/hsdpo  unchanged  fit; ")
    paths = [line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()[0] for line in lines[:-1]]
    assert paths == [
        *("made/hsdpo", "made/one", "made/rsft", "made/base", "rows.jsonl"),
        *("made/rsft", "made/two", "made/rsft"),
    ]
    assert "seed_everything 3, data.seed 4" in lines[2]
    assert "predict; 20" in lines[1]
    assert lines[4].endswith("rows.jsonl  unchanged  file without a manifest")
    assert lines[5].endswith("made/rsft  unchanged  see above")
    assert lines[-1] == "6 of 6 unchanged"


def test_json_has_the_same_content(capsys: pytest.CaptureFixture[str]) -> None:
    content = read(capsys, "made/hsdpo")
    assert content["count"] == 6
    assert content["changed_or_missing"] == {}
    top = content["trees"][0]
    assert top["command"] == ["fit", "--config", "a.yaml"]
    assert top["found"] == content_hash("made/hsdpo")
    assert top["recorded"] is None
    assert top["versions"]["python"].startswith("3.")
    first = top["inputs"][0]
    assert (first["path"], first["seeds"]) == ("made/one", {"model.seed": 5})
    assert first["recorded"] == first["found"] == content_hash("made/one")
    assert top["inputs"][1] == {
        "path": "made/rsft",
        "kind": "artefact",
        "state": "unchanged",
        "recorded": content_hash("made/rsft"),
        "found": content_hash("made/rsft"),
        "shown_above": True,
    }


def test_a_source_that_changed(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.jsonl").write_text("{}\n")
    content = read(capsys, "made/hsdpo", code=1)
    assert content["changed_or_missing"] == {"rows.jsonl": "changed since"}
    assert show(capsys, "made/hsdpo", code=1)[-1] == "1 of 6 changed or missing: rows.jsonl (changed since)"


def test_a_rebuilt_input_is_changed_since(capsys: pytest.CaptureFixture[str]) -> None:
    make("fit", "made/rsft", "made/base", text="other weights")
    found = states(read(capsys, "made/hsdpo", code=1))
    assert found == {**dict.fromkeys(found, "unchanged"), "made/rsft": "changed since"}
    assert read(capsys, "made/rsft")["changed_or_missing"] == {}


def test_an_edited_artefact_is_changed_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    Path("made/base/made.txt").write_text("edited")
    found = states(read(capsys, "made/rsft", code=1))
    assert found == {"made/rsft": "unchanged", "made/base": "changed by hand", "rows.jsonl": "unchanged"}
    make("fit", "made/rsft", "made/base")  # which reads what was edited
    assert states(read(capsys, "made/rsft", code=1))["made/base"] == "changed by hand"


def test_missing_inputs_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("made/one")
    Path("rows.jsonl").unlink()
    assert main(["lineage", "made/hsdpo"]) == 1
    message = capsys.readouterr()
    assert message.out.splitlines()[-1] == "2 of 6 changed or missing: made/one (missing), rows.jsonl (missing)"
    assert message.err == (f"hint: relative paths are resolved in {Path.cwd()}; run this where the commands were run\n")
    (one,) = [node for node in nodes(read(capsys, "made/hsdpo", code=1)["trees"][0]) if node["path"] == "made/one"]
    assert (one["kind"], one["found"], one["inputs"]) == (None, None, [])


def test_a_class_without_files_is_a_leaf(capsys: pytest.CaptureFixture[str]) -> None:
    source = {"class_path": EMBEDDED, "init_args": {"parts": ["home"]}}
    make("fit", "made/m", data={"class_path": "x.Data", "init_args": {"source": source}})
    (leaf,) = read(capsys, "made/m")["trees"][0]["inputs"]
    assert (leaf["path"], leaf["kind"], leaf["state"]) == (EMBEDDED, "code", "unchanged")
    assert leaf["init_args"] == {"parts": ["home"]}
    assert show(capsys, "made/m")[1] == f"└── {EMBEDDED}  unchanged  code; parts=['home']"


def test_sources_within_sources_and_benchmarks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(".")
    Path("mine.py").write_text("class Source: pass\n")
    files = {"class_path": "guardreasoner.sources.files.Files", "init_args": {"train": "rows.jsonl"}}
    together = {"class_path": "guardreasoner.sources.concat.Concat", "init_args": {"sources": [files, EMBEDDED]}}
    arguments = {"source": together, "benchmarks": ["mine.Source", EMBEDDED, "absent.Source"]}
    make("fit", "made/m", data={"init_args": arguments})
    assert states(read(capsys, "made/m")) == {
        "made/m": "unchanged",
        "rows.jsonl": "unchanged",
        EMBEDDED: "unchanged",
        "mine.Source": "unchanged",
        "absent.Source": "not looked at",
    }
    Path("mine.py").write_text("class Source: more = 1\n")
    assert states(read(capsys, "made/m", code=1))["mine.Source"] == "changed since"
    Path("mine.py").unlink()
    assert states(read(capsys, "made/m", code=1))["mine.Source"] == "missing"


def test_a_hub_model_is_a_leaf(capsys: pytest.CaptureFixture[str]) -> None:
    make("fit", "made/m", model={"init_args": {"backbone": {"path": "somebody/model"}}})
    lines = show(capsys, "made/m")
    assert lines[1:] == [
        "└── somebody/model  not looked at  on a hub",
        "1 of 2 unchanged",
        "not looked at: somebody/model",
    ]


def test_a_file_inside_an_artefact_leads_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "made/rsft/made.txt") == show(capsys, "made/rsft") == show(capsys, "made/rsft/manifest.json")
    make("fit", "made/m", "made/rsft/made.txt")
    inner = read(capsys, "made/m")["trees"][0]["inputs"][0]
    assert (inner["path"], inner["kind"], inner["state"]) == ("made/rsft/made.txt", "file", "unchanged")
    assert [node["path"] for node in inner["inputs"]] == ["made/rsft"]


def test_pairs_lead_to_their_rollouts(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollouts(Path("plain"), "HU HH"), rollouts(Path("made/one"), "HU UU", "n")]
    make("predict", "made/one", "made/rsft")
    assert main(["pairs", "--rollouts", *folders, "--out", "pairs.jsonl", "--gamma", "0.3", "--seed", "7"]) == 0
    manifest = Manifest.read("pairs.jsonl")
    assert manifest is not None
    assert manifest.command[:2] == ["pairs", "--rollouts"]
    assert manifest.inputs == {"plain": content_hash("plain"), "made/one": content_hash("made/one")}
    assert manifest.config is not None
    assert (manifest.config["gamma"], manifest.config["output"]) == (0.3, "pairs.jsonl")
    lines = show(capsys, "pairs.jsonl")
    assert "seed 7" in lines[0]
    assert lines[1].endswith("plain  unchanged  folder without a manifest")
    assert "made/one  unchanged  predict" in lines[2]
    assert lines[-1] == "6 of 6 unchanged"
    Path("plain/rollouts.jsonl").write_text("{}\n")
    assert read(capsys, "pairs.jsonl", code=1)["changed_or_missing"] == {"plain": "changed since"}


def test_shared_inputs_are_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    one, two = read(capsys, "made/one", "made/two")["trees"]
    assert [node["path"] for node in nodes(one)] == ["made/one", "made/rsft", "made/base", "rows.jsonl"]
    assert [node.get("shown_above") for node in nodes(two)] == [None, True]


def test_contamination_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    make("fit", "made/rsft", "made/base", allow_contamination=True)
    make("predict", "made/one", "made/rsft")
    lines = show(capsys, "made/one")
    assert [line.endswith("made with --allow_contamination") for line in lines[:3]] == [True, True, False]
    assert read(capsys, "made/one")["trees"][0]["allow_contamination"] is True


def test_relative_inputs_are_found_from_another_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("elsewhere/made/rsft").mkdir(parents=True)  # of the same name, and not what was read
    monkeypatch.chdir("elsewhere")
    content = read(capsys, str(tmp_path / "made/hsdpo"))
    assert content["count"] == 6
    assert str(tmp_path / "made/rsft") in states(content)
    shutil.move(tmp_path / "made/hsdpo", "moved")
    found = read(capsys, "moved", code=1)["changed_or_missing"]
    assert found == {"made/one": "missing", "made/rsft": "changed since", "made/two": "missing"}


def test_a_cycle_ends(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("made/base/manifest.json")
    row = json.loads(path.read_text())
    path.write_text(json.dumps(row | {"inputs": {"made/hsdpo": content_hash("made/hsdpo"), "made/base": "0" * 64}}))
    assert read(capsys, "made/hsdpo", code=1)["changed_or_missing"] == {"made/base": "changed since"}


def test_an_older_manifest_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    for path in Path("made").glob("*/manifest.json"):
        row = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in row.items() if key not in ("config", "origins")}))
    assert show(capsys, "made/hsdpo")[-1] == "6 of 6 unchanged"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("made/hspdo", "error: made/hspdo: no such file or folder\nhint: did you mean made/hsdpo?\n"),
        ("nowhere/at/all", "error: nowhere/at/all: no such file or folder\n"),
        (
            "rows.jsonl",
            "error: rows.jsonl: no manifest found\n"
            "hint: models, rollouts, predictions and pairs made by guardreasoner have a manifest; "
            "source files have none\n",
        ),
        ("made", "error: made: no manifest found\nhint: models"),
        ("foreign", "error: foreign/manifest.json: not a manifest of guardreasoner, or damaged\n"),
        ("foreign/manifest.json", "error: foreign/manifest.json: no manifest found\nhint: models"),
        ("/", "error: /: no manifest found\nhint: models"),
    ],
)
def test_a_path_without_manifest_is_one_line(path: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("foreign").mkdir()
    Path("foreign/manifest.json").write_text('{"command": "none", "fingerprint": "", "inputs": [], "content": ""}')
    assert main(["lineage", path]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(message)
    assert shown.err.count("\n") <= 2
    assert shown.out == ""


def test_lineage_imports_no_torch() -> None:
    code = "import sys; from guardreasoner.cli.main import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "lineage", "made/hsdpo"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


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


def test_code_of_the_user_that_changed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("own_loss.py").write_text("def mine(): ...\n")
    manifest = Manifest.read("made/hsdpo")
    assert manifest is not None
    replace(manifest, code={"own_loss.mine": code_hash("own_loss.mine")}).write("made/hsdpo")
    assert states(read(capsys, "made/hsdpo"))["own_loss.mine"] == "unchanged"
    Path("own_loss.py").write_text("def mine(): return 1\n")
    assert read(capsys, "made/hsdpo", code=1)["changed_or_missing"] == {"own_loss.mine": "changed since"}
