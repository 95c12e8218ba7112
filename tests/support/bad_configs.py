"""Commands with a wrong config, each with the words that its error line must contain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BadConfig:
    """A command that must end with exit code 2 and one line.

    Args:
        kind: what is wrong, in a word; the tests run one command of each kind, the campaign all.
        argv: the command; "{folder}" stands for the working folder.
        named: the key or the place that the line must name.
        value: a further text that the line must contain, such as the wrong value or the hint.
        files: content of files of the working folder, by name.
    """

    kind: str
    argv: Sequence[str]
    named: str
    value: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)

    def write_files(self, folder: Path) -> None:
        """Write the files of the case into the working folder."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def command(self, folder: Path) -> list[str]:
        """Return the command for a working folder."""
        return [word.replace("{folder}", str(folder)) for word in self.argv]

    def fault(self, message: str) -> str | None:
        """Return what is wrong with the printed error; None if it says what it should."""
        lines = message.splitlines()
        if [line.split(":")[0] for line in lines] not in (["error"], ["error", "hint"]):
            return f"expected an error line and at most one hint, got {message!r}"
        if self.named not in lines[0].replace("init_args.", ""):
            return f"the line does not name {self.named}: {lines[0]}"
        return None if self.value in message else f"{self.value!r} is missing: {message!r}"


def cases() -> list[BadConfig]:
    """Return all commands."""
    found = [
        *_numbers(),
        *_not_finite(),
        *_types(),
        *_contradictions(),
        *_checkpoints(),
        *_trainer_flags(),
        *_optimizers(),
        *_unknown_keys(),
        *_classes(),
        *_files(),
        *_labels(),
        *_pipelines(),
    ]
    return found


FIT = ("fit", "--config", "rsft")
PREFER = ("fit", "--config", "hsdpo")
MINE = ("predict", "--config", "mine")
TEST = ("test", "--config", "evaluate")
TEACH = ("predict", "--config", "synthesize")
ATTACK = ("test", "--config", "robustness")
GRPO = ("fit", "--config", "grpo")
SERVER = (*MINE, "--config", "engine/server")
RAY = (*MINE, "--config", "engine/ray")
VLLM = (*MINE, "--config", "engine/vllm")
PLAIN = (*MINE, "--config", "engine/plain")


def _numbers() -> Iterator[BadConfig]:
    """Yield numbers out of their range."""
    wrong: list[tuple[str, Sequence[str], str, Sequence[str]]] = [
        ("count", FIT, "data.batch_size", ("0", "-1")),
        ("count", FIT, "data.micro_batch_size", ("0", "-4")),
        ("count", FIT, "data.micro_batch_tokens", ("0",)),
        ("count", FIT, "data.epochs", ("0", "-1")),
        ("count", FIT, "data.bucket_steps", ("0", "-2")),
        ("count", FIT, "data.max_length", ("0", "-512")),
        ("count", MINE, "data.chunk_size", ("0", "-1")),
        ("count", TEST, "data.chunk_size", ("0",)),
        ("count", PREFER, "data.batch_size", ("0",)),
        ("count", PREFER, "data.epochs", ("0",)),
        ("count", PREFER, "data.pairing.cap", ("0", "-8")),
        ("count", PREFER, "model.reference.batch_size", ("0",)),
        ("count", MINE, "model.k", ("0", "-4")),
        ("count", TEST, "model.k", ("0",)),
        ("count", MINE, "model.generator.max_new_tokens", ("0", "-1")),
        ("count", MINE, "model.generator.batch_size", ("0",)),
        ("count", MINE, "model.generator.chunk", ("0",)),
        ("count", MINE, "model.generator.workers", ("0",)),
        ("count", PLAIN, "model.generator.batch_size", ("0",)),
        ("count", TEST, "model.greedy.max_new_tokens", ("0",)),
        ("count", SERVER, "model.generator.max_tokens", ("0",)),
        ("count", SERVER, "model.generator.concurrency", ("0",)),
        ("count", SERVER, "model.generator.choices_per_request", ("0",)),
        ("count", TEACH, "model.generator.attempts", ("0",)),
        ("count", RAY, "model.generator.chunk", ("0",)),
        ("count", RAY, "model.generator.engine.batch_size", ("0",)),
        ("count", VLLM, "model.generator.max_new_tokens", ("0",)),
        ("count", TEACH, "model.ask_again", ("-1",)),
        ("count", TEACH, "model.expected_tokens", ("0",)),
        ("start epoch", FIT, "data.start_epoch", ("-1", "3")),
        ("rate", FIT, "model.warmup", ("-0.1", "1.5")),
        ("rate", PREFER, "model.warmup", ("2",)),
        ("rate", FIT, "model.max_grad_norm", ("-1",)),
        ("rate", PREFER, "model.max_grad_norm", ("-0.5",)),
        ("rate", PREFER, "model.beta", ("0", "-0.01")),
        ("rate", PREFER, "model.sft_coef", ("-1",)),
        ("rate", PREFER, "data.pairing.gamma", ("1", "1.0", "-0.1")),
        ("rate", PREFER, "data.validation_share", ("1", "-0.1")),
        ("rate", FIT, "data.similarity", ("1.1", "-1")),
        ("rate", MINE, "model.generator.temperature", ("-1",)),
        ("rate", MINE, "model.generator.top_p", ("0", "1.5")),
        ("rate", SERVER, "model.generator.timeout", ("0",)),
        ("rate", SERVER, "model.generator.pause", ("-1",)),
        ("rate", TEACH, "model.prices.input", ("-1",)),
        ("rate", ATTACK, "data.attacks.share", ("0", "1.5")),
        ("rate", (*FIT, "--config", "model/lora"), "model.backbone.lora.dropout", ("1", "-0.1")),
        ("count", (*FIT, "--config", "model/lora"), "model.backbone.lora.r", ("0", "-8")),
        ("seed", FIT, "seed_everything", ("-1", "4294967296")),
        ("seed", FIT, "data.seed", ("-1",)),
        ("seed", MINE, "model.seed", ("-1", str(2**63))),
        ("seed", PREFER, "data.pairing.seed", ("-1",)),
        ("recipe", FIT, "recipe.rsft_lr", ("0", "-1")),
        ("recipe", PREFER, "recipe.hsdpo_lr", ("0",)),
        ("recipe", FIT, "recipe.rsft_batch_size", ("0",)),
        ("recipe", PREFER, "recipe.hsdpo_batch_size", ("-1",)),
        ("recipe", FIT, "recipe.micro_batch_size", ("0",)),
        ("recipe", FIT, "recipe.max_length", ("0",)),
        ("recipe", MINE, "recipe.max_new_tokens", ("0",)),
        ("recipe", MINE, "recipe.temperature", ("-0.5",)),
        ("recipe", MINE, "recipe.top_p", ("0", "2")),
        ("recipe", MINE, "recipe.generation_batch_size", ("0",)),
    ]
    for kind, command, key, values in wrong:
        for value in values:
            yield BadConfig(kind, (*command, f"--{key}", value), key, value)


def _not_finite() -> Iterator[BadConfig]:
    """Yield numbers that are not finite, as flags and in files."""
    for value in (".nan", "nan", ".inf", "-.inf", "1e999", "Infinity"):
        yield BadConfig("not finite", (*FIT, "--model.warmup", value), "model.warmup")
        yield BadConfig("not finite", (*PREFER, "--model.beta", value), "model.beta")
        yield BadConfig("not finite", (*MINE, "--model.generator.temperature", value), "model.generator.temperature")
    for value in (".nan", ".inf", "1e999", "-.inf"):
        yield BadConfig("not finite", (*FIT, "--model.optimizer.lr", value), "model.optimizer.lr")
        text = f"model:\n  init_args:\n    max_grad_norm: {value}\n"
        yield from _overlay("not finite in a file", FIT, text, "bad.yaml:3", value)


def _types() -> Iterator[BadConfig]:
    """Yield values of a wrong type."""
    for key, value, expected in (
        ("data.batch_size", "many", "a whole number"),
        ("data.batch_size", "2.5", "a whole number"),
        ("data.batch_size", "[1, 2]", "a whole number"),
        ("data.epochs", "three", "a whole number"),
        ("data.epochs", "true", "a whole number"),
        ("model.warmup", "half", "a number"),
        ("model.max_grad_norm", "{a: 1}", "a number"),
        ("data.skip_too_long", "maybe", "true or false"),
        ("data.micro_batch_size", "few", "a whole number"),
        ("auto_build", "perhaps", "true or false"),
        ("save_optimizer", "7", "true or false"),
        ("recipe.rsft_lr", "fast", "a number"),
        ("recipe.vocabulary", "big", "a whole number"),
        ("recipe.tasks", "harmful", "a list"),
        ("model.backbone.dtype", "float64", "float32"),
        ("model.backbone.quantization", "8bit", "4bit"),
        ("trainer.max_steps", "all", "a whole number"),
        ("trainer.precision", "bf17", "bf16"),
        ("trainer.precision", "16-mixed", "bf16-mixed"),
    ):
        yield BadConfig("type", (*FIT, f"--{key}", value), key, expected)
    for key, value, expected in (
        ("data.pairing.chosen", "best", "random"),
        ("data.pairing.parser", "first", "final-block"),
        ("data.pairing.pool", "both", "true or false"),
        ("data.rollouts", "{a: 1}", "a list"),
    ):
        yield BadConfig("type", (*PREFER, f"--{key}", value), key, expected)
    yield BadConfig("type", (*TEST, "--data.split", "train"), "data.split", "validation")
    yield from _overlay("type in a file", FIT, "data:\n  init_args:\n    batch_size: many\n", "data.batch_size", "many")
    yield from _overlay("type in a file", FIT, "model: 7\n", "model")
    yield from _overlay("type in a file", FIT, "trainer: fast\n", "trainer")
    yield from _overlay("type in a file", FIT, "recipe: fast\n", "recipe")
    yield from _overlay("type in a file", FIT, "recipe:\n  max_length: long\n", "recipe.max_length", "long")


def _contradictions() -> Iterator[BadConfig]:
    """Yield values that contradict each other."""
    yield BadConfig("greedy", (*MINE, "--model.generator.temperature", "0"), "model.generator.temperature", "model.k")
    yield BadConfig("greedy", (*GRPO, "--model.generator.temperature", "0"), "model.generator.temperature", "model.k")
    yield BadConfig("one output", (*GRPO, "--model.k", "1"), "model.k", "at least 2")
    yield BadConfig("greedy", (*MINE, "--recipe.temperature", "0"), "model.generator.temperature", "model.k")
    yield BadConfig("greedy", (*SERVER, "--model.generator.temperature", "0"), "model.generator.temperature")
    yield BadConfig("greedy", (*RAY, "--model.generator.engine.temperature", "0"), "engine.temperature")
    yield BadConfig("greedy", (*TEST, "--model.generator.temperature", "0"), "model.generator.temperature")
    for recipe, key, one, other in (
        ("rsft_batch_size", "data.batch_size", "4", "8"),
        ("rsft_lr", "model.optimizer.lr", "1e-3", "2e-3"),
        ("max_length", "data.max_length", "100", "200"),
    ):
        argv = (*FIT, f"--recipe.{recipe}", one, f"--{key}", other)
        yield BadConfig("set twice", argv, f"recipe.{recipe}", key.rpartition(".")[2])
    yield BadConfig("interpolation", (*FIT, "--data.batch_size", "${recipe.batch}"), "recipe.batch")
    yield BadConfig("interpolation", (*FIT, "--data.cache", "${nothing}"), "nothing")
    yield BadConfig("interpolation", (*FIT, "--data.cache", "${recipe.logs"), "data")
    yield BadConfig("interpolation", (*FIT, "--recipe.base", "${recipe.base}"), "recipe.base")


def _checkpoints() -> Iterator[BadConfig]:
    """Yield checkpoints that do not exist."""
    for path in (
        "best",
        "last",
        "hpc",
        "registry",
        "absent.ckpt",
        "http://127.0.0.1:9/a.ckpt",
        "s3://bucket/a",
        "{folder}",
    ):
        for command in (FIT, TEST):
            yield BadConfig("checkpoint", (*command, "--ckpt_path", path), "ckpt_path", path.replace("{folder}", ""))


def _trainer_flags() -> Iterator[BadConfig]:
    """Yield settings of the trainer that Lightning or this project refuses."""
    for key, value in (
        ("max_epochs", "3"),
        ("max_epochs", "-1"),
        ("max_epochs", "0"),
        ("accumulate_grad_batches", "4"),
        ("gradient_clip_val", "1.0"),
        ("max_steps", "-5"),
        ("accelerator", "gpu"),
        ("accelerator", "quantum"),
        ("devices", "0"),
        ("devices", "-2"),
        ("strategy", "deepspeed_stage_2"),
        ("strategy", "nonsense"),
        ("limit_train_batches", "-1"),
        ("limit_train_batches", "1.5"),
        ("val_check_interval", "-1"),
        ("log_every_n_steps", "-3"),
        ("check_val_every_n_epoch", "half"),
        ("max_time", "soon"),
        ("num_nodes", "0"),
        ("overfit_batches", "-1"),
        ("profiler", "stopwatch"),
    ):
        yield BadConfig("trainer", (*FIT, f"--trainer.{key}", value), key)
    for logger in ("WandbLogger", "MLFlowLogger", "CometLogger"):
        argv = (*FIT, "--trainer.logger", f"lightning.pytorch.loggers.{logger}")
        yield BadConfig("logger", argv, "trainer.logger", logger)
    yield BadConfig("logger", (*FIT, "--trainer.logger", "Printer"), "trainer.logger", "Printer")
    for command, monitor in ((FIT, "val_loss"), (FIT, "val/margin"), (PREFER, "val/accuracy")):
        for callback in ("EarlyStopping", "ModelCheckpoint"):
            argv = (*command, f"--trainer.callbacks+={callback}", f"--trainer.callbacks.monitor={monitor}")
            yield BadConfig("monitor", argv, "trainer.callbacks.monitor", monitor)


def _optimizers() -> Iterator[BadConfig]:
    """Yield settings that the optimizer refuses."""
    for key, value in (
        ("lr", "0"),
        ("lr", "-1e-3"),
        ("weight_decay", "-1"),
        ("betas", "[2.0, 0.9]"),
        ("eps", "-1"),
        ("momentum", "0.9"),
    ):
        for command in (FIT, PREFER):
            yield BadConfig("optimizer", (*command, f"--model.optimizer.{key}", value), "optimizer", key.rstrip("s"))
    yield BadConfig("optimizer", (*FIT, "--model.optimizer", "torch.optim.Adamw"), "model.optimizer", "Adamw")
    yield BadConfig("optimizer", (*FIT, "--model.optimizer", "AdamMW"), "model.optimizer", "AdamMW")


def _unknown_keys() -> Iterator[BadConfig]:
    """Yield misspelt keys, as flags and in overlays."""
    for command, key, near in (
        (FIT, "data.batchsize", "batch_size"),
        (FIT, "data.epoch", "epochs"),
        (FIT, "model.warm_up", "warmup"),
        (FIT, "model.optimizer.learning_rate", ""),
        (FIT, "trainer.max_step", "max_steps"),
        (FIT, "recipe.rsft_lrr", "rsft_lr"),
        (FIT, "data.source.trains", "train"),
        (FIT, "sed_everything", "seed_everything"),
        (FIT, "outptu", "output"),
        (PREFER, "data.pairing.gama", "gamma"),
        (PREFER, "model.betta", "beta"),
        (MINE, "model.generator.temprature", "temperature"),
        (MINE, "model.K", ""),
        (TEST, "model.greedy.maxtokens", ""),
    ):
        yield BadConfig("unknown flag", (*command, f"--{key}", "3"), key.rpartition(".")[2], near)
    for command, text, key, near in (
        (FIT, "data:\n  init_args:\n    batchsize: 3\n", "bad.yaml:3", "batch_size"),
        (FIT, "data:\n  init_args:\n    source:\n      init_args:\n        trian: 3\n", "bad.yaml:5", "train"),
        (FIT, "model:\n  init_args:\n    backbone:\n      paht: a\n", "bad.yaml:4", "path"),
        (FIT, "model:\n  init_args:\n    optimizer:\n      init_args:\n        lrr: 1\n", "bad.yaml:5", "lr"),
        (FIT, "trainer:\n  max_step: 3\n", "bad.yaml:2", "max_steps"),
        (FIT, "recipe:\n  bases: x\n", "bad.yaml:2", "base"),
        (FIT, "outputs: x\n", "bad.yaml:1", "output"),
        (PREFER, "data:\n  init_args:\n    pairing:\n      gama: 0.1\n", "bad.yaml:4", "gamma"),
        (
            MINE,
            "model:\n  init_args:\n    generator:\n      init_args:\n        temprature: 1\n",
            "bad.yaml:5",
            "temperature",
        ),
        (FIT, "model:\n  init_args:\n    backbone:\n      lora: {rank: 8}\n", "bad.yaml:4", ""),
    ):
        yield from _overlay("unknown key", command, text, key, near)


def _classes() -> Iterator[BadConfig]:
    """Yield classes that do not exist or do not fit."""
    for command, key, path in (
        (FIT, "data.source", "guardreasoner.Embeded"),
        (FIT, "data.source", "no_such_module.Source"),
        (FIT, "data.source", "collections.OrderedDict"),
        (FIT, "data", "guardreasoner.ReasoningDataModul"),
        (FIT, "model", "guardreasoner.RSFTModul"),
        (FIT, "data.collate", "guardreasoner.model.batch.nothing"),
        (PREFER, "model.objective", "guardreasoner.training.losses.dpoo"),
        (PREFER, "model.objective", "3"),
        (PREFER, "model.reference", "guardreasoner.FrozenCopi"),
        (MINE, "model.generator", "guardreasoner.LocalGenerato"),
        (MINE, "model.generator", "json.loads"),
    ):
        yield BadConfig("class", (*command, f"--{key}", path), key.rpartition(".")[2], path.rpartition(".")[2])


def _files() -> Iterator[BadConfig]:
    """Yield config files that cannot be read, or that are no plain YAML mapping."""
    for kind, text, named, value in (
        ("duplicate key", "recipe:\n  rsft_lr: 1\n  rsft_lr: 2\n", "bad.yaml:3", "rsft_lr"),
        ("duplicate key", "model: {}\nmodel: {}\n", "bad.yaml:2", "model"),
        ("duplicate key", "data: {init_args: {epochs: 1, epochs: 2}}\n", "bad.yaml:1", "epochs"),
        ("duplicate key", '{"recipe": {"base": "a", "base": "b"}}', "bad.yaml:1", "base"),
        ("alias bomb", _bomb(), "bad.yaml", "aliases"),
        ("alias bomb", "recipe: &a\n  base: *a\n", "bad.yaml", "itself"),
        ("depth", "recipe: " + "[" * 60 + "]" * 60, "bad.yaml", "deep"),
        ("depth", "recipe: " + "[" * 20_000 + "]" * 20_000, "bad.yaml", "deep"),
        ("encoding", b"recipe:\n  base: caf\xe9\n", "bad.yaml", "UTF-8"),
        ("encoding", "recipe:\n  base: a\0b\n", "bad.yaml", "not valid YAML"),
        ("encoding", "recipe: {base: a}".encode("utf-16"), "bad.yaml", "UTF-8"),
        ("syntax", "recipe: [1, 2\n", "bad.yaml:2", ""),
        ("syntax", "recipe:\n\tbase: a\n", "bad.yaml:2", ""),
        ("syntax", "recipe: *missing\n", "bad.yaml:1", "missing"),
        ("syntax", "recipe: {}\n---\nrecipe: {}\n", "bad.yaml", ""),
        ("syntax", "a: b: c\n", "bad.yaml:1", ""),
        ("no mapping", "- a\n- b\n", "bad.yaml", "mapping"),
        ("no mapping", "word\n", "bad.yaml", "mapping"),
        ("tag", "recipe: !!python/object/apply:os.system ['echo run']\n", "bad.yaml:1", ""),
        ("tag", "recipe: !secret x\n", "bad.yaml:1", ""),
        ("huge number", "seed_everything: " + "9" * 5000 + "\n", "bad.yaml:1", "number"),
    ):
        yield from _overlay(kind, FIT, text, named, value)
    yield BadConfig("missing file", ("fit", "--config", "absent.yaml"), "absent.yaml", "no such file")
    yield BadConfig("missing file", ("fit", "--config", "hsdop"), "hsdop", "hsdpo")
    yield BadConfig("missing file", ("fit", "--config", "configs/model/qlor.yaml"), "qlor.yaml", "qlora")
    yield BadConfig("missing file", ("fit", "--config", "{folder}"), "--config", "folder")
    yield BadConfig("missing file", (*FIT, "--config", "../configs/rsft"), "../configs/rsft", "no such file")
    yield BadConfig("missing file", ("fit", "--config"), "--config")
    yield BadConfig("missing file", ("run", "--config", "absent.yaml"), "absent.yaml", "no such file")


def _labels() -> Iterator[BadConfig]:
    """Yield tasks and mappings of labels that cannot be meant."""
    for task, named in (
        ("{name: v, key: V, question: q, labels: [yes]}", "labels"),
        ("{name: v, key: V, question: q, labels: [yes, Yes]}", "labels"),
        ("{name: v, key: V, question: q, labels: [yes, no], positive: maybe}", "positive"),
        ("{name: v, key: V, question: q, labels: [yes, no], positive: on}", "positive"),
        ("{name: V, key: V, question: q, labels: [yes, no]}", "name"),
        ("{name: v, key: V, question: q}", "labels"),
        ("{name: v, key: V, question: q, labels: [null, no]}", "labels"),
        ("{name: v, key: V, question: q, labels: yes}", "labels"),
        ("{name: v, key: V, question: q, label: [yes, no]}", "label"),
        ("{name: v, key: yes, question: q, labels: [a, b]}", "key"),
    ):
        yield from _overlay("labels", FIT, f"recipe:\n  tasks:\n    - {task}\n", named)


def _pipelines() -> Iterator[BadConfig]:
    """Yield pipeline files and configs of ``base-model`` that are wrong."""
    for text, named in (
        ("stages:\n  a: fit --config rsft\n  a: fit --config hsdpo\n", "bad.yaml:3"),
        ("stages: [a]\n", "stages"),
        ("stage:\n  a: fit --config rsft\n", "stages"),
        ("stages:\n  a: fit --config nothing\n", "nothing"),
        ("stages:\n  a: fit --config rsft\n  b: fit --config rsft\n", "stages a and b"),
        (_bomb(), "aliases"),
    ):
        yield BadConfig("pipeline", ("run", "--config", "bad.yaml"), named, files={"bad.yaml": text})
    for key, value in (
        ("vocabulary", "0"),
        ("layers", "0"),
        ("heads", "3"),
        ("kv_heads", "0"),
        ("rope_theta", "-1.0"),
        ("seed", "-1"),
        ("layer", "3"),
    ):
        argv = ("base-model", "--config", "base", "--config", "bad.yaml")
        yield BadConfig("base model", argv, key, files={"bad.yaml": f"{key}: {value}\n"})


def _overlay(kind: str, command: Sequence[str], text: str | bytes, named: str, value: str = "") -> Iterator[BadConfig]:
    yield BadConfig(kind, (*command, "--config", "bad.yaml"), named, value, {"bad.yaml": text})


def _bomb() -> str:
    """Return a small file that expands to 9 ** 9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    return "\n".join(lines) + "\n"
