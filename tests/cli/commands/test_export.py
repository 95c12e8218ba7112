"""``export``: adapters, merged models and folders that ``transformers`` serves alone answer as the guard does."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTuner
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardreasoner.cli.commands.base_model import make_base_model
from guardreasoner.cli.main import main
from guardreasoner.evaluation.calibration import Calibration, Identity
from guardreasoner.evaluation.calibration.stored import stored_calibrations
from guardreasoner.guard.chat_export import chat_request
from guardreasoner.guard.verification import compare_verdicts, local_answers
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.lora import LoRA
from guardreasoner.records import Record, write_jsonl
from guardreasoner.sources.embedded.policies import EmbeddedPolicies
from guardreasoner.tasks import POLICY_TASKS
from guardreasoner.workflow.guard_file import write_calibration
from guardreasoner.workflow.integrity import changed_files
from guardreasoner.workflow.lineage import lineage
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.output_lock import locked_output
from tests.support.architectures import make_adapter, make_model_folder
from tests.support.guards import known_records
from tests.support.tiny import TinySource, answer, load, make_tiny_adapter, make_tiny_base

SHORT = ("--max_new_tokens", "24")
RECORDS = TinySource().records("test")
CALIBRATION = Calibration(
    "request",
    "direct",
    Identity(),
    0.5,
    0.2,
    0.05,
    0.04,
    (0.0, 0.1),
    negatives=20,
    false_positives=1,
    records=40,
    data="d",
)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def export(model: Path, *flags: str) -> int:
    return main(["export", str(model), "--out", "out", *flags])


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail with one line and at most one hint, and leave nothing; return both."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(list(argv)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.startswith("error: ")
    assert len(error.splitlines()) <= 2
    assert sorted(Path().rglob("*")) == before
    return error


def texts_of(model: Path, records: Sequence[Record] = RECORDS, **arguments: Any) -> list[str]:
    return local_answers(Backbone(str(model), **arguments), 24)(records, "reasoned")


def plain_texts(folder: Path) -> list[str]:
    """Return the answers of transformers alone, in this process."""
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    texts = []
    for record in RECORDS:
        asked = chat_request(record, "reasoned")
        ids = tokenizer.apply_chat_template(**asked, return_dict=True, return_tensors="pt")
        output = network.generate(**ids, max_new_tokens=24)
        texts.append(tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def test_a_merged_adapter_answers_as_before(tiny_adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(shutil.copytree(tiny_adapter, "model"))
    (model / "optimizer.pt").write_bytes(b"state")
    Manifest.describe(model, ["fit"], "f", {}, config={"output": "model"}).write(model)
    write_calibration(model / "guard.json", "request", CALIBRATION.as_json())
    assert export(model, "--verify", "30", *SHORT) == 0
    assert "texts equal on 30" in capsys.readouterr().out
    out = Path("out")
    assert {path.name for path in out.iterdir()} == {
        *("README.md", "config.json", "generation_config.json", "guard.json", "manifest.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert {path.stat().st_mode for path in out.iterdir()} == {(out / "config.json").stat().st_mode}
    assert texts_of(out) == texts_of(tiny_adapter)
    assert "base" not in json.loads((out / "guard.json").read_text())
    assert stored_calibrations(out) == [CALIBRATION]
    assert list(changed_files(out)) == []
    (tree,) = lineage([out])
    assert {Path(node.path).name: node.state for node in tree.inputs}["model"] == "unchanged"
    assert tree.manifest
    assert tree.manifest.config
    assert tree.manifest.config["verified"]["changed"] == 0


def test_an_adapter_is_merged_into_a_base_that_was_moved(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_tiny_adapter(shutil.copytree(tiny_base, tmp_path / "base"), tmp_path / "adapter")
    before = texts_of(adapter)
    moved = str((tmp_path / "base").rename(tmp_path / "moved"))
    assert "--base_path" in failure(capsys, "export", str(adapter), "--out", "out")
    assert export(adapter, "--base_path", moved, "--verify", "30", *SHORT) == 0
    assert texts_of(Path("out")) == before
    assert main(["export", str(adapter), "--out", "alone", "--as", "adapter", "--base_path", moved]) == 0
    assert texts_of(Path("alone")) == before  # it names the place that was given
    other = str(make_tiny_base(tmp_path / "other", hidden_size=32))
    assert "is not the base model" in failure(capsys, "export", str(adapter), "--out", "x", "--base_path", other)
    wrong = failure(capsys, "export", "out", "--out", "x", "--base_path", moved)
    assert "out holds all weights" in wrong


@pytest.mark.parametrize("architecture", ["Qwen3", "Gemma", "Mistral", "Phi3"])
def test_other_architectures_are_merged(architecture: str, tiny_base: Path) -> None:
    base = make_model_folder(architecture, tiny_base, Path("base"))
    layer = "qkv_proj" if architecture == "Phi3" else "q_proj"
    model = make_adapter(base.resolve(), Path("model"), target_modules=[layer, "down_proj"], r=4)
    shutil.copy(tiny_base / "guard.json", model)  # names the prompt format
    expected = texts_of(model)
    assert expected != texts_of(base)
    assert export(model, "--as", "transformers") == 0
    assert plain_texts(Path("out")) == expected
    assert texts_of(Path("out")) == expected


@pytest.mark.slow
def test_transformers_alone_gives_the_verdicts(tiny_adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = [Record(f"r{n}", text, text) for n, text in enumerate(("<end>", "\u2028Policy: x", "", "🙂", "  a  "))]
    write_jsonl("records.jsonl", [*RECORDS, *odd])
    flags = ("--as", "transformers", "--verify", "11", "--records", "records.jsonl", *SHORT)
    assert export(tiny_adapter, *flags) == 0
    assert "texts equal on 11" in capsys.readouterr().out
    config = json.loads(Path("out/generation_config.json").read_text())
    assert (config["top_k"], config["max_new_tokens"]) == (1, 2048)
    assert json.loads(Path("out/tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "chat template" in Path("out/README.md").read_text()


def test_bfloat16_is_compared_and_listed(tiny_adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tiny_adapter, "--dtype", "bfloat16", "--verify", "6", *SHORT) == 0
    assert "float32 before, bfloat16 after" in capsys.readouterr().out
    network = AutoModelForCausalLM.from_pretrained("out")
    assert network.dtype == torch.bfloat16


def test_differences_are_counted_and_fail_in_float32(tiny_base: Path) -> None:
    before = Backbone(str(tiny_base))

    def other(records: Sequence[Record], speed: str) -> list[str]:
        return [answer(record, right=True) for record in records]

    found = compare_verdicts(before, other, RECORDS, "float32", 8)
    assert found.changed == found.unparsed == len(RECORDS)
    assert found.equal_texts == 0
    assert found.failed
    first = found.differences[0]
    assert first.line() == "test/00 (reasoned) request: unparsed, now harmful"
    assert not compare_verdicts(before, other, RECORDS, "bfloat16", 8).failed
    assert not compare_verdicts(before, local_answers(before, 8), RECORDS, "float32", 8).failed


@pytest.mark.slow
@pytest.mark.parametrize("is_merged", [True, False])
def test_only_an_export_with_the_same_verdicts_is_uploaded(
    is_merged: bool, both_speeds: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []

    class Hub:
        """The client of a hub that stores nothing."""

        def create_repo(self, repo: str, **_: object) -> str:
            return f"https://hub.example/{repo}"

        def upload_folder(self, folder_path: str, **_: object) -> None:
            uploaded.append(folder_path)

    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    if not is_merged:  # a library that loses the adapter
        monkeypatch.setattr(BaseTuner, "merge_and_unload", lambda tuner, **_: tuner.unload())
    write_jsonl("records.jsonl", known_records())
    adapter = make_tiny_adapter(both_speeds, Path("adapter"))
    flags = ("--verify", "4", "--records", "records.jsonl", "--max_new_tokens", "96", "--push_to_hub", "me/guard")
    assert export(adapter, *flags) == (0 if is_merged else 1)
    assert uploaded == (["out"] if is_merged else [])
    last = capsys.readouterr().out.splitlines()[-1]
    not_uploaded = f"not uploaded: the verdicts of out differ from those of {adapter}"
    assert last == ("uploaded: https://hub.example/me/guard" if is_merged else not_uploaded)
    assert Path("out/model.safetensors").exists()


def make_four_bit_adapter(folder: Path) -> Path:
    """Make an adapter of a base model that was loaded in 4 bits, as ``fit`` leaves it."""
    torch.manual_seed(0)
    base = make_tiny_base(folder / "base", hidden_size=64)
    backbone = load(base, lora=LoRA(r=2, alpha=4), quantization="4bit")
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model = folder / "adapter"
    backbone.save(model)
    options = {"backbone": {"path": str(base), "quantization": "4bit"}}
    Manifest.describe(model, ["fit"], "f", {}, config={"model": {"init_args": options}}).write(model)
    return model


def test_a_four_bit_base_is_dequantized_first(capsys: pytest.CaptureFixture[str]) -> None:
    model = make_four_bit_adapter(Path.cwd())
    assert export(model, "--verify", "10", *SHORT) == 0
    assert "texts equal on 10" in capsys.readouterr().out
    quantized, merged = load(model, quantization="4bit"), load(Path("out"))
    ids = torch.tensor([[1, 5, 9, 30, 7]])
    with torch.no_grad():
        logits = [backbone.network(input_ids=ids).logits for backbone in (quantized, merged, load(model))]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    assert (logits[0] - logits[2]).abs().max() > 1e-2  # the base in full precision is another model
    assert "quantization_config" not in json.loads(Path("out/config.json").read_text())

    merged_weights = Path("out/model.safetensors").read_bytes()
    assert main(["export", "adapter", "--out", "again", "--as", "adapter"]) == 0
    assert main(["export", "again", "--out", "once-more", "--as", "adapter"]) == 0
    for name in ("again", "once-more"):  # the manifest of an exported adapter says it too
        assert main(["export", name, "--out", f"{name}-merged"]) == 0
        assert Path(f"{name}-merged/model.safetensors").read_bytes() == merged_weights

    shutil.rmtree("out")
    shutil.rmtree("base")
    error = failure(capsys, "export", "adapter", "--out", "out")
    assert "base model are missing" in error


def test_the_base_model_of_an_adapter_is_never_replaced(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tiny_base) == 0  # so that another export may replace it
    make_tiny_adapter(Path("out"), Path("adapter"))
    for more in ((), ("--overwrite",), ("--as", "adapter")):
        assert "also read by this command (base.path)" in failure(capsys, "export", "adapter", "--out", "out", *more)


def test_an_adapter_alone(tiny_adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(shutil.copytree(tiny_adapter, "model"))
    (model / "optimizer.pt").write_bytes(b"state")
    assert export(model, "--as", "adapter", "--verify", "6", *SHORT) == 0
    assert "path of this machine" in capsys.readouterr().out
    assert not Path("out/optimizer.pt").exists()
    assert texts_of(Path("out")) == texts_of(tiny_adapter)


def test_a_guard_with_policies(capsys: pytest.CaptureFixture[str]) -> None:
    make_base_model("base", EmbeddedPolicies(train=8).records("train"), list(POLICY_TASKS), 300, hidden_size=16)
    assert export(Path("base"), "--verify", "4", "--max_new_tokens", "2") == 0
    assert "texts equal on 4;" in capsys.readouterr().out
    write_jsonl("plain.jsonl", RECORDS)
    shutil.rmtree("out")
    assert "no policy" in failure(capsys, "export", "base", "--out", "out", "--verify", "4", "--records", "plain.jsonl")


def test_wrong_requests_are_one_line(
    tiny_base: Path, tiny_adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "no-token")
    base = str(tiny_base)
    Path("notes").mkdir()
    Path("notes/todo.txt").write_text("mine")
    Path("few.jsonl").write_text('{"id": "a", "prompt": "x"}\n')
    Path("list.json").write_text("[]")
    cases = {
        "gguf": (base, "--out", "out", "--as", "gguf"),
        "no adapter": (base, "--out", "out", "--as", "adapter"),
        "no such model folder": ("nowhere", "--out", "out"),
        "not a model folder": ("notes", "--out", "out"),
        "not made by this project": (base, "--out", "notes"),
        "also read": (base, "--out", base),
        "only used with --verify": (base, "--out", "out", "--records", "few.jsonl"),
        "has 1 records": (base, "--out", "out", "--records", "few.jsonl", "--verify", "2"),
        "1 or more": (base, "--out", "out", "--verify", "0"),
        "copied as it is": (str(tiny_adapter), "--out", "out", "--as", "adapter", "--dtype", "bfloat16"),
        "no token": (base, "--out", "out", "--push_to_hub", "me/guard"),
        "--push_to_hub a b": (base, "--out", "out", "--push_to_hub", "a b"),
        "only used with --push_to_hub": (base, "--out", "out", "--public"),
        "JSON of score": (base, "--out", "out", "--scores", "list.json"),
        "JSON of robustness": (base, "--out", "out", "--robustness", "list.json"),
        "cannot be read": (base, "--out", "out", "--scores", "nothing.json"),
    }
    for says, argv in cases.items():
        assert says in failure(capsys, "export", *argv)
    with locked_output("out"):
        capsys.readouterr()
        assert export(tiny_base) == 2
        assert "error: out" in capsys.readouterr().err
