"""4-bit weights without bitsandbytes, or without its kernels, are one line before anything is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny import load

WITHOUT_PACKAGE = "import sys; sys.modules['bitsandbytes'] = None"
WITHOUT_KERNELS = """
import bitsandbytes.functional

def quantize_4bit(*_, **__):
    raise RuntimeError("Configured CUDA binary not found\\n\\nCUDA SETUP: …")

bitsandbytes.functional.quantize_4bit = quantize_4bit
"""


@pytest.mark.parametrize(
    ("before", "error"),
    [
        (WITHOUT_PACKAGE, "4bit needs bitsandbytes, which cannot be imported: "),
        (WITHOUT_KERNELS, "4bit: bitsandbytes has no kernels for this cpu: Configured CUDA binary not found"),
    ],
    ids=["package", "kernels"],
)
def test_four_bits_without_support_are_one_line(before: str, error: str, tiny_base: Path) -> None:
    script = (
        f"{before}\nfrom guardreasoner.errors import InputError\nfrom guardreasoner.model.backbone import Backbone\n"
        f"try:\n Backbone({str(tiny_base)!r}, quantization='4bit').load()\nexcept InputError as error:\n"
        " print(error.lines())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200)
    first, hint = done.stdout.splitlines()
    assert first.startswith(f"error: model.backbone.quantization: {error}"), done
    assert "model.backbone.quantization: null" in hint


def test_what_works_here_is_accepted(tiny_base: Path) -> None:
    load(tiny_base, quantization="4bit")
