"""Artefacts that try to run code, to write outside their folder, or to use up time and memory.

``cases()`` yields them. Each is laid out in a folder and given to a command; if any of its code runs, it creates the
file ``executed`` beside that folder.
"""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import torch
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from guardreasoner.records import Record, Rollout, write_jsonl
from tests.support.tiny import command, make_tiny_base

Setup = Callable[[Path], list[str]]
"""Writes a case into an empty folder, which is the working folder, and returns the arguments of the command."""


@dataclass(frozen=True)
class Case:
    """A malicious artefact.

    Args:
        name: what it is.
        setup: lays it out.
        harmless: whether the command succeeds, because what is malicious about the artefact is ignored.
        check: asserts more about the folder after a command that succeeded.
    """

    name: str
    setup: Setup
    harmless: bool = False
    check: Callable[[Path], None] = lambda folder: None

    def canary(self, folder: Path) -> Path:
        """Return the file that appears if code of the artefact in ``folder`` runs."""
        return canary(folder)


def canary(folder: Path) -> Path:
    """Return the file that code of an artefact in ``folder`` creates."""
    return folder.parent / "executed"


def cases() -> Iterator[Case]:
    """Yield all cases."""
    yield from _checkpoints()
    yield from _model_folders()
    yield from _adapters()
    yield from _data()
    yield from _texts()
    yield from _paths()


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.path = str(canary(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def _code(folder: Path) -> str:
    return f"open({str(canary(folder))!r}, 'w').close()\n"


@cache
def _base() -> Path:
    return make_tiny_base(Path(tempfile.mkdtemp(prefix="malicious-")) / "base")


def _fit(base: Path | str, *more: str) -> list[str]:
    return list(command("rsft", Path(base), "--trainer.fast_dev_run", "1", *more))


# Checkpoints and optimizer states.


def _raw_pickle(folder: Path, file: Path) -> None:
    file.write_bytes(pickle.dumps({"state_dict": Payload(folder)}))


def _torch_zip(folder: Path, file: Path) -> None:
    torch.save({"state_dict": {}, "evil": Payload(folder)}, file)


def _torch_legacy(folder: Path, file: Path) -> None:
    torch.save({"state_dict": {}, "evil": Payload(folder)}, file, _use_new_zipfile_serialization=False)


def _torchscript(folder: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"x/{name}", pickle.dumps(Payload(folder)))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/code/__torch__.py", _code(folder))


def _polyglot(folder: Path, file: Path) -> None:
    """A valid safetensors file, followed by a valid zip file of a pickle."""
    _torch_zip(folder, file)
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4) + file.read_bytes())


def _numpy_pickle(folder: Path, file: Path) -> None:
    with file.open("wb") as out:
        numpy.save(out, numpy.array([Payload(folder)], dtype=object), allow_pickle=True)


_PICKLES: dict[str, Callable[[Path, Path], None]] = {
    "raw pickle": _raw_pickle,
    "torch zip": _torch_zip,
    "torch legacy": _torch_legacy,
    "torchscript": _torchscript,
    "polyglot": _polyglot,
    "numpy": _numpy_pickle,
}
_ADDRESSES = {
    "http": "http://127.0.0.1:9/x.ckpt",
    "https": "https://127.0.0.1:9/x.ckpt",
    "s3": "s3://bucket/x.ckpt",
    "hf": "hf://me/model/x.ckpt",
    "file": "file://{folder}/x.ckpt",
    "cached": "simplecache::file://{folder}/x.ckpt",
    "registry": "registry:me/model",
}


def _checkpoints() -> Iterator[Case]:
    def local(write: Callable[[Path, Path], None], folder: Path) -> list[str]:
        write(folder, folder / "x.ckpt")
        return _fit(_base(), "--ckpt_path", "x.ckpt")

    def remote(address: str, folder: Path) -> list[str]:
        _torch_zip(folder, folder / "x.ckpt")
        return _fit(_base(), "--ckpt_path", address.format(folder=folder))

    def flag(folder: Path) -> list[str]:
        _torch_zip(folder, folder / "x.ckpt")
        return _fit(_base(), "--ckpt_path", "x.ckpt", "--weights_only", "false")

    def optimizer(write: Callable[[Path, Path], None], folder: Path) -> list[str]:
        write(folder, folder / "optimizer.pt")
        return _fit(_base(), "--model.optimizer_state", "optimizer.pt")

    for name, write in _PICKLES.items():
        yield Case(f"checkpoint: {name}", partial(local, write))
    for name, address in _ADDRESSES.items():
        yield Case(f"checkpoint address: {name}", partial(remote, address))
    yield Case("checkpoint: --weights_only false", flag)
    for name in ("raw pickle", "torch zip"):
        yield Case(f"optimizer state: {name}", partial(optimizer, _PICKLES[name]))


# Model folders.


def _model(folder: Path, change: Callable[[Path, Path], None], harmless: bool = False) -> list[str]:
    model = folder / "model"
    shutil.copytree(_base(), model)
    change(folder, model)
    return _fit("./model")


def _merge_json(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _only_pickle(folder: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"x": Payload(folder)}, model / "pytorch_model.bin")


def _sharded_pickle(folder: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"x": Payload(folder)}, model / "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {"total_size": 1}, "weight_map": {"x": "pytorch_model-00001-of-00001.bin"}}
    (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _index(name: str, folder: Path, model: Path) -> None:
    (model / "model.safetensors").unlink()
    target = model / name
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"x": Payload(folder)}, target)
    index = {"metadata": {"total_size": 1}, "weight_map": {"model.embed_tokens.weight": name}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickle_named_safetensors(folder: Path, model: Path) -> None:
    torch.save({"x": Payload(folder)}, model / "model.safetensors")


def _auto_map(model_type: str, folder: Path, model: Path) -> None:
    code = "from transformers import LlamaConfig as Evil, LlamaForCausalLM as EvilModel\n"
    (model / "modeling_evil.py").write_text(_code(folder) + code)
    auto_map = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.EvilModel"}
    _merge_json(model / "config.json", auto_map=auto_map, model_type=model_type, trust_remote_code=True)


def _tokenizer_code(folder: Path, model: Path) -> None:
    code = "from transformers import PreTrainedTokenizerFast as EvilTokenizer\n"
    (model / "tokenization_evil.py").write_text(_code(folder) + code)
    auto_map = {"AutoTokenizer": ["tokenization_evil.EvilTokenizer", "tokenization_evil.EvilTokenizer"]}
    values = {"auto_map": auto_map, "tokenizer_class": "EvilTokenizer", "trust_remote_code": True}
    _merge_json(model / "tokenizer_config.json", **values)


def _custom_generate(folder: Path, model: Path) -> None:
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(_code(folder) + "def generate(**_): ...\n")
    _merge_json(model / "generation_config.json", custom_generate="./custom_generate", trust_remote_code=True)


def _kernel(folder: Path, model: Path) -> None:
    _merge_json(model / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/kernel")


def _chat_template(template: str, folder: Path, model: Path) -> None:
    (model / "chat_template.jinja").write_text(template.replace("CANARY", str(canary(folder))))
    guard = json.loads((model / "guard.json").read_text())
    guard["format"]["chat_template"] = True
    (model / "guard.json").write_text(json.dumps(guard))


def _model_folders() -> Iterator[Case]:
    changes: dict[str, Callable[[Path, Path], None]] = {
        "pickle only": _only_pickle,
        "sharded pickle": _sharded_pickle,
        "safetensors index of a pickle": partial(_index, "pytorch_model.bin"),
        "safetensors index of a pickle above": partial(_index, "../pytorch_model.bin"),
        "pickle named safetensors": _pickle_named_safetensors,
        "polyglot": lambda folder, model: _polyglot(folder, model / "model.safetensors"),
        "own architecture": partial(_auto_map, "evil"),
        "own tokenizer": _tokenizer_code,
        "attention of a hub": _kernel,
        "template: memory": partial(_chat_template, "{{ 'a' * 10**10 }}"),
        "template: memory in a filter": partial(_chat_template, "{{ 'a' | center(10**10) }}"),
        "template: time": partial(
            _chat_template, "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
        ),
        "template: endless": partial(
            _chat_template, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
        ),
        "template: attributes": partial(
            _chat_template, "{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}"
        ),
        "template: globals": partial(
            _chat_template, "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}{{ messages[0].content }}"
        ),
        "template: file": partial(_chat_template, "{% include '/etc/passwd' %}"),
    }
    for name, change in changes.items():
        yield Case(f"model: {name}", partial(_model, change=change))
    ignored: dict[str, Callable[[Path, Path], None]] = {
        "code for a known architecture": partial(_auto_map, "llama"),
        "own generate": _custom_generate,
        "link to itself": lambda folder, model: (model / "loop").symlink_to(model),
    }
    for name, change in ignored.items():
        yield Case(f"model: {name}", partial(_model, change=change), harmless=True)


# Adapters.


def _adapter(folder: Path, weights: str = "adapter_model.safetensors", **values: Any) -> list[str]:
    adapter = folder / "adapter"
    adapter.mkdir()
    (folder / "evil.py").write_text(_code(folder))
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    config |= {"base_model_name_or_path": str(_base())} | values
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    torch.save({"x": Payload(folder)}, adapter / weights)
    for file in (*_base().glob("tokenizer*"), _base() / "guard.json"):
        shutil.copy(file, adapter)
    return _fit("./adapter")


def _adapters() -> Iterator[Case]:
    def pickled_base(folder: Path) -> list[str]:
        base = folder / "base"
        shutil.copytree(_base(), base)
        _only_pickle(folder, base)
        return _adapter(folder, base_model_name_or_path=str(base))

    yield Case("adapter: pickle", partial(_adapter, weights="adapter_model.bin"))
    yield Case("adapter: pickle named safetensors", _adapter)
    yield Case("adapter: module of megatron", partial(_adapter, megatron_config={"x": 1}, megatron_core="evil"))
    yield Case("adapter: another kind", partial(_adapter, peft_type="XLORA", adapters={"0": "./evil"}))
    yield Case("adapter: a billion layers", partial(_adapter, layer_replication=[[0, 1_000_000_000]]))
    yield Case("adapter: base of pickles", pickled_base)


# Data.


def _hub_folder(folder: Path, write: Callable[[Path, Path], dict[str, Any]]) -> list[str]:
    """Write a data set's folder with a card; the reader of BeaverTails is pointed at it."""
    data = folder / "beavertails"
    data.mkdir()
    card = write(folder, data)
    (data / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    source = {"class_path": "guardreasoner.BeaverTails", "init_args": {"path": "./beavertails"}}
    return [word if word != "tests.support.tiny.TinySource" else json.dumps(source) for word in _fit(_base())]


def _script(folder: Path, data: Path) -> dict[str, Any]:
    for name in ("beavertails.py", "dataset.py"):
        (data / name).write_text(_code(folder))
    return {}


def _webdataset(folder: Path, data: Path) -> dict[str, Any]:
    with tarfile.open(data / "train.tar", "w") as archive:
        for name in ("0.pyd", "0.pickle", "0.pth", "../../evil.txt", "/tmp/../evil.txt"):
            content = pickle.dumps(Payload(folder))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return _card("train.tar")


def _zip_traversal(folder: Path, data: Path) -> dict[str, Any]:
    with zipfile.ZipFile(data / "train.zip", "w") as archive:
        for name in ("../../../evil.csv", "/evil.csv", "train.csv"):
            archive.writestr(name, "prompt,response,is_safe\na,b,true\n")
    return _card("train.zip")


def _card(file: str) -> dict[str, Any]:
    splits = [{"split": split, "path": file} for split in ("30k_train", "30k_test")]
    return {"configs": [{"config_name": "default", "data_files": splits}]}


def _files(folder: Path, name: str, write: Callable[[Path, Path], None]) -> list[str]:
    write(folder, folder / name)
    source = {"class_path": "guardreasoner.Files", "init_args": {"train": name}}
    return [word if word != "tests.support.tiny.TinySource" else json.dumps(source) for word in _fit(_base())]


def _gzipped_pickle(folder: Path, file: Path) -> None:
    file.write_bytes(gzip.compress(pickle.dumps(Payload(folder))))


def _pickled_extension_type(folder: Path, file: Path) -> None:
    metadata = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Payload(folder)),
    }
    fields = [pyarrow.field("prompt", pyarrow.binary(), metadata=metadata)]
    table = pyarrow.table([pyarrow.array([b"a"])], schema=pyarrow.schema(fields))
    pyarrow.parquet.write_table(table, file)


def _data() -> Iterator[Case]:
    for name, write in {"script": _script, "webdataset": _webdataset, "zip traversal": _zip_traversal}.items():
        yield Case(f"data set: {name}", partial(_hub_folder, write=write))
    files: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
        "numpy": ("rows.npy", _numpy_pickle),
        "pickle": ("rows.pkl", _raw_pickle),
        "pickle named JSONL": ("rows.jsonl", _raw_pickle),
        "extension type in Parquet": ("rows.parquet", _pickled_extension_type),
        "gzipped pickle": ("rows.jsonl.gz", _gzipped_pickle),
    }
    for name, (file, write) in files.items():
        yield Case(f"rows: {name}", partial(_files, name=file, write=write))


# YAML and templates.

_TAGS = {
    "apply": "!!python/object/apply:builtins.open [{canary}, w]",
    "new": "!!python/object/new:builtins.open {{args: [{canary}, w]}}",
    "module": "!!python/module:evil",
    "name": "!!python/name:evil.x",
}
_TEMPLATES = {
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "memory": "{{ 'a' * 10**10 }}",
    "memory in a filter": "{{ 'a' | center(10**10) }}",
    "number": "{{ 10**(10**10) }}",
    "time": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "file": "{% include '/etc/passwd' %}",
}


def _texts() -> Iterator[Case]:
    def config(tag: str, folder: Path) -> list[str]:
        (folder / "evil.py").write_text(_code(folder))
        (folder / "evil.yaml").write_text(f"output: {tag.format(canary=canary(folder))}\n")
        return _fit(_base(), "--config", "evil.yaml")

    def flag(folder: Path) -> list[str]:
        return _fit(_base(), "--data.max_length", _TAGS["apply"].format(canary=canary(folder)))

    def address(option: str, folder: Path) -> list[str]:
        (folder / "evil.py").write_text(_code(folder))
        MemoryFileSystem().pipe("/evil.yaml", b"class_path: evil.Evil\n")  # one that needs no server
        return _fit(_base(), option, "memory://evil.yaml")

    def teacher(template: str, folder: Path) -> list[str]:
        text = template.replace("CANARY", str(canary(folder)))
        options = [
            "--model.template",
            text,
            "--data.source",
            "tests.support.tiny.TinySource",
            "--model.ask_all",
            "true",
        ]
        return ["predict", "--config", "configs/synthesize.yaml", "--auto_build", "false", *options, "--dry_run"]

    for name, tag in _TAGS.items():
        yield Case(f"YAML: {name}", partial(config, tag))
    yield Case("YAML: flag", flag)
    yield Case("config address", partial(address, "--config"))
    yield Case("model address", partial(address, "--model"))
    for name, template in _TEMPLATES.items():
        yield Case(f"teacher's template: {name}", partial(teacher, template))


# Paths, links and names.


def _rollouts(folder: Path, name: str) -> None:
    records = [Record(f"{name}{n}", f"p{n}", "r", {"request": "harmful"}, None, name) for n in range(4)]
    verdicts = ["Request: harmful", "Request: unharmful"]
    rollouts = [
        Rollout(record.id, name or "m", "f", index, 0, f"Because.\n\nAnswers:\n{verdict}")
        for record in records
        for index, verdict in enumerate(verdicts)
    ]
    write_jsonl(folder / "rollouts" / "records.jsonl", records)
    write_jsonl(folder / "rollouts" / "rollouts.jsonl", rollouts)


_SHORT = (
    *("--model.generator.max_new_tokens", "2", "--model.greedy.max_new_tokens", "2"),
    *("--model.greedy.chunk", "8", "--data.rollouts", "null"),
)

SOURCES = ("..", "../../outside", "/outside", "...", "tasks.json", "x" * 300, "a/b", "a-b")
"""Sources of records, each of which must get a folder of its own inside the output."""


def _paths() -> Iterator[Case]:
    def pairs(name: str, folder: Path) -> list[str]:
        _rollouts(folder, name)
        return ["pairs", "--rollouts", "rollouts", "--out", "pairs.jsonl", "--details", "--html", "page.html"]

    def linked_output(folder: Path) -> list[str]:
        (folder / "pairs.jsonl").symlink_to(folder.parent / "outside.jsonl")
        return pairs("a", folder)

    def sources(folder: Path) -> list[str]:
        rows = [
            {"id": str(n), "prompt": f"p {n}", "labels": {"request": "harmful"}, "source": name}
            for n, name in enumerate(SOURCES)
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = {"class_path": "guardreasoner.Files", "init_args": {"test": "rows.jsonl"}}
        words = command("evaluate", _base(), *_SHORT)
        return [word if word != "tests.support.tiny.TinySource" else json.dumps(source) for word in words]

    def apart(folder: Path) -> None:
        assert {path.name for path in folder.iterdir()} == {"configs", "rows.jsonl", "made"}
        assert len(list(folder.glob("made/*/generated_predictions.jsonl"))) == len(SOURCES)

    def manifest(folder: Path) -> list[str]:
        _rollouts(folder, "a")
        content = {"command": ["pairs", "$(touch x)", "`id`"], "fingerprint": "", "inputs": {"/etc/passwd": "x"}}
        (folder / "rollouts" / "manifest.json").write_text(json.dumps({**content, "content": "x"}))
        return ["lineage", "rollouts"]

    def rater(folder: Path) -> list[str]:
        return ["review", "rollouts", "--rater", "../../outside"]

    for name in ("..", "../../outside/", "/outside/", "\x1b[2J\u202e", "$(touch outside)"):
        yield Case(f"names in rollouts: {name!a}", partial(pairs, name), harmless=True)
    yield Case("link in place of an output", linked_output, harmless=True)
    yield Case("sources of records", sources, harmless=True, check=apart)
    yield Case("commands in a manifest", manifest)
    yield Case("name of a rater", rater)


def files_outside(folder: Path) -> set[str]:
    """Return all files and folders beside a case's folder."""
    return {name for name in os.listdir(folder.parent) if name != folder.name}
