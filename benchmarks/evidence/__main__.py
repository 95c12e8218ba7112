"""Runs a study, then writes the page ``docs/evidence.md``.

    PYTHONPATH=.:benchmarks python -m evidence                              # all of studies/arms.yaml
    PYTHONPATH=.:benchmarks python -m evidence --arms hsdpo rsft --seeds 1  # some of it
    PYTHONPATH=.:benchmarks python -m evidence --page-only                  # the page, from the stored results
    PYTHONPATH=.:benchmarks python -m evidence --results mine               # results and page in a folder of your own

Run it from the root of the repository. Start it again after a stop, or beside itself: what is finished is not repeated,
and what was stopped halfway goes on. A result whose file is deleted is made anew from its finished stages, in seconds;
they are in checkpoints/evidence and logs/evidence, and serve any folder of results.
Another kind of processor trains other models: there, run all arms of a seed, or use a folder of your own.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from evidence.page import write_page
from evidence.study import ROOT, Study, require_known, shown
from guardreasoner.errors import InputError
from guardreasoner.workflow.stop_signals import Stopped

STUDIES = ROOT / "benchmarks" / "evidence" / "studies"
RESULTS = ROOT / "benchmarks" / "results" / "evidence"


def main() -> int:
    """Run the study; return 1 if a result is missing, 2 if the study or a flag is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", default=STUDIES / "arms.yaml", help="default: studies/arms.yaml")
    parser.add_argument("--data", nargs="+", help="data sets; default all of the study")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds; default those of each data set")
    parser.add_argument("--arms", nargs="+", help="arms; default all of the study, in its order")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    page = "page of all studies in the study's folder; default docs/evidence.md, or evidence.md in --results FOLDER"
    parser.add_argument("--page", type=Path, help=page)
    parser.add_argument("--page-only", action="store_true", help="run nothing, only write the page")
    arguments = parser.parse_args()
    try:
        if not arguments.study.is_file():
            names = ", ".join(path.name for path in sorted(STUDIES.glob("*.yaml")))
            raise InputError(f"{arguments.study}: no such study", f"{shown(STUDIES)} has {names}")
        _require_folder(arguments.results, make=not arguments.page_only)
        study = Study.load(arguments.study)
        require_known("--data", "data set", arguments.data or (), study.data)
        data = arguments.data or list(study.data)
        arms = {arm: None for name in data for arm in study.arms_of(name)}
        require_known("--arms", "arm", arguments.arms or (), arms)
        seeds = {seed: None for name in data for seed in study.seeds_of(name)}
        require_known("--seeds", "seed", arguments.seeds or (), seeds)
        complete = True
        if not arguments.page_only:
            from evidence.campaign import run

            chosen = (data, arguments.seeds or list(seeds), arguments.arms or list(study.arms))
            complete = run(study, *chosen, arguments.results / study.name)
        studies = [Study.load(path) for path in sorted(arguments.study.parent.glob("*.yaml"))]
        own = arguments.results.resolve() != RESULTS
        page = arguments.page or (arguments.results / "evidence.md" if own else ROOT / "docs" / "evidence.md")
        write_page(studies, arguments.results, page)
    except InputError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"{stopped.line()}; start the study again to go on", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("stopped by SIGINT; start the study again to go on", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0 if complete else 1


def _require_folder(folder: Path, *, make: bool) -> None:
    """Raise ``InputError`` if a folder of results is not there or, if results are to be made, cannot be written."""
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--results {folder}: {error.strerror}, expected a folder that can be written") from None
    if not folder.is_dir() or (make and not os.access(folder, os.W_OK)):
        raise InputError(f"--results {folder}: expected a folder" + (" that can be written" if make else " of results"))


if __name__ == "__main__":
    sys.exit(main())
