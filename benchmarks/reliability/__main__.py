"""Runs parts of the campaign, or all, and writes the page."""

import argparse
import sys
from pathlib import Path

from reliability.campaign import ROOT, run
from reliability.journal import Journal
from reliability.page import page
from reliability.parts import PARTS


def main() -> int:
    """Run the requested parts; return 1 if a part has a failure or lacks trials."""
    parser = argparse.ArgumentParser(prog="python -m reliability", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "reliability")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "reliability.md")
    parser.add_argument("--target", type=int, help="number to reach in each part, instead of its own")
    parser.add_argument("--again", action="store_true", help="run failed trials again")
    parser.add_argument("--page-only", action="store_true", help="run nothing, only write the page")
    parser.add_argument("--keep", type=Path, help="keep the files of failed trials in this folder")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    journals = {name: Journal(arguments.results / f"{name}.jsonl") for name in PARTS}
    complete = True
    for name in arguments.parts or PARTS:
        if not arguments.page_only:
            journals[name].drop_unfinished_line()
            if arguments.again:
                journals[name].drop_failures()
            complete &= run(PARTS[name], journals[name], arguments.target, arguments.keep)
    arguments.page.write_text(page(PARTS.values(), journals), encoding="utf-8")
    print(f"written: {arguments.page}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
