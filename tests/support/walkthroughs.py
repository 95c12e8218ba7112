"""Type a page's command lines into bash, and record what they start."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

RECORD = """#!{python} -SE
import json, os, sys
assert sys.argv[1:3] == ["-m", "guardreasoner"], sys.argv
kept = ("GUARDREASONER_", "OPENAI_", "SLURM_")
variables = {{name: value for name, value in os.environ.items() if name.startswith(kept)}}
typed = sys.stdin.read() if "--jsonl" in sys.argv else ""
with open({file!r}, "a") as file:
    file.write(json.dumps([sys.argv[3:], variables, typed]) + "\\n")
"""
MAKE = """#!/bin/bash
set -e
make=$(PATH=${{PATH#*:}} command -v make)
"$make" --silent --dry-run --file {root}/Makefile --old-file .venv/installed "$@" > make.txt
sed -n 's#^\\.venv/bin/python#python#p' make.txt | bash -e
"""
SBATCH = """#!/bin/bash
set -e
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS_PER_NODE=8 SLURM_NNODES=2 SLURM_NTASKS=16 SLURM_JOB_NAME=guard
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
bash "$@" >&2
echo 17
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
"$@"
"""
HF = """#!/bin/bash
set -e
[[ $1 == download && $3 == --local-dir && $# == 4 ]]
mkdir -p "$(dirname "$4")"
cp -r {model} "$4"
"""


@dataclass(frozen=True)
class Typed:
    """A command of guardreasoner that a page starts.

    Args:
        argv: verb and words.
        variables: environment variables that concern it.
        stdin: what is piped into it.
    """

    argv: list[str]
    variables: Mapping[str, str]
    stdin: str


def typed(page: str, folder: Path, model: Path | None = None) -> list[Typed]:
    """Type all lines of ``docs/PAGE`` into one shell; return the commands of guardreasoner as they are started.

    ``python`` records its words and runs nothing; ``make`` starts what the Makefile starts; ``sbatch`` and ``srun``
    start the job at once; ``hf download`` copies a local model. All else is the real program. A block of YAML that
    begins with ``# NAME.yaml`` is written to that file first.

    Args:
        page: name of the page.
        folder: working folder, absolute, with the files that the page expects of its reader.
        model: model folder that ``hf download`` finds.
    """
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} <= {"", "yaml"}, blocks
    for language, text in blocks:
        if language == "yaml":
            (folder / text.split()[1]).write_text(text)
    programs, record = folder / "programs", folder / "typed.jsonl"
    programs.mkdir()
    values = {"python": sys.executable, "file": str(record), "root": ROOT, "model": model}
    for name, script in {"python": RECORD, "make": MAKE, "sbatch": SBATCH, "srun": SRUN, "hf": HF}.items():
        (programs / name).write_text(script if name in ("sbatch", "srun") else script.format(**values))
        (programs / name).chmod(0o755)
    script = "".join(text for language, text in blocks if not language)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [Typed(*json.loads(line)) for line in record.read_text().splitlines()]
