"""What the commands leave out of other packages, in new processes."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

NEVER = {
    *("torchmetrics.functional.audio", "torchmetrics.functional.text", "torchmetrics.functional.image", "matplotlib"),
    *(
        "scipy",
        "sklearn",
        "pandas",
        "datasets",
        "rensa",
        "peft",
        "bitsandbytes",
        "torch._inductor.compile_fx",
        "tensorflow",
    ),
    *("transformers.trainer_utils", "vllm", "ray"),
}
"""Modules that no Lightning verb on a small model from a folder uses."""
UNUSED_BY_THE_PARSER = NEVER | {"transformers", "torch._dynamo", "sympy", "accelerate", "huggingface_hub"}

RUN = """
import atexit, sys
from guardreasoner.cli.main import main
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.exit(main(sys.argv[1:]))
"""
DEFER = "from guardreasoner.cli.deferred_imports import defer_imports; defer_imports(); "


def modules(*argv: str, folder: Path = ROOT) -> set[str]:
    """Run a command in a new process and return what it imported."""
    done = subprocess.run([sys.executable, "-c", RUN, *argv], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("verb", "config"), [("fit", "hsdpo"), ("fit", "rsft"), ("predict", "mine"), ("test", "evaluate")]
)
def test_parsing_a_config_imports_no_more_than_the_parser_needs(verb: str, config: str) -> None:
    imported = modules(verb, "--config", f"configs/{config}.yaml", "--print_config")
    assert {"torch", "lightning.pytorch", "torchmetrics.metric"} <= imported
    assert imported & UNUSED_BY_THE_PARSER == set()


def test_a_fit_from_tokenized_data_imports_no_more_than_it_needs(tiny_base: Path, tmp_path: Path) -> None:
    argv = ["fit", "--config", str(ROOT / "configs/rsft.yaml"), "--auto_build", "false", "--output", "made"]
    argv += ["--model.backbone.path", str(tiny_base), "--data.skip_too_long", "true", "--data.cache", "tokenized"]
    argv += ["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]
    modules(*argv, folder=tmp_path)
    imported = modules(*argv, "--overwrite", folder=tmp_path)
    assert {"transformers.models.llama.modeling_llama", "torch._dynamo"} <= imported
    assert imported & NEVER == set()


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", DEFER + program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_torchmetrics_is_complete_for_who_asks() -> None:
    program = (
        "import torchmetrics, sys; first = torchmetrics.Metric; version = torchmetrics.__version__;"
        "assert 'torchmetrics.text' not in sys.modules;"
        "assert issubclass(torchmetrics.Accuracy, first);"  # defined by its __init__
        "assert torchmetrics.__version__ == version and torchmetrics.Metric is first;"
        "from torchmetrics.functional import accuracy; from torchmetrics.classification import BinaryF1Score;"
        "from torchmetrics.text import BLEUScore; from torchmetrics import *;"
        "print(BLEUScore()(['a b c d'], [['a b c d']]).item(), 'F1Score' in globals())"
    )
    assert run(program) == "1.0 True"


def test_a_module_of_torchmetrics_can_be_imported_first() -> None:
    assert run("from torchmetrics.metric import Metric; print(Metric.__name__)") == "Metric"


def test_an_unknown_name_of_torchmetrics_is_an_error() -> None:
    program = (
        "import torchmetrics; assert not hasattr(torchmetrics, 'Nothing'); import torchmetrics.classification as c;"
        "assert not hasattr(c, '__wrapped__') and not hasattr(c, 'Nothing'); print('done')"
    )
    assert run(program) == "done"


def test_lightning_still_recognizes_compiled_modules() -> None:
    program = (
        "import sys, torch, lightning.pytorch as pl; from lightning.fabric.wrappers import _unwrap_compiled;"
        "from lightning.pytorch.utilities.compile import _maybe_unwrap_optimized as unwrap;"
        "assert 'torch._dynamo' not in sys.modules; import torch._dynamo; assert torch._dynamo.OptimizedModule;"
        "module = pl.LightningModule(); assert unwrap(module) is module;"
        "compiled = torch.compile(module, backend='eager'); assert isinstance(compiled, torch._dynamo.OptimizedModule);"
        "assert unwrap(compiled) is module;"
        "assert _unwrap_compiled(torch.compile(torch.nn.Linear(1, 1), backend='eager'))[1] is not None; print('done')"
    )
    assert run(program) == "done"
