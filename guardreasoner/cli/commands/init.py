"""``init``: copy the configs that come with the package into a folder, to be changed there."""

import argparse
from pathlib import Path

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.config_file import SHIPPED

HELP = "copy the configs that come with the package to FOLDER/configs, where they can be changed"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to work in, created if it is missing")
    parser.add_argument("--overwrite", action="store_true", help="replace configs that were changed")


def run(args: argparse.Namespace) -> int:
    """Copy the configs; leave files that are the same already.

    Args:
        args: the arguments that :func:`configure` declares.

    Raises:
        InputError: a config there differs and ``--overwrite`` is not given, or a file cannot be written.
    """
    target = args.folder / "configs"
    texts = {target / file.relative_to(SHIPPED): file.read_bytes() for file in sorted(SHIPPED.rglob("*.yaml"))}
    try:
        present = [path for path in texts if path.exists()]
        changed = [path for path in present if path.read_bytes() != texts[path]]
        if changed and not args.overwrite:
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise InputError(f"{changed[0]}{more}: differs from the package's config", "--overwrite replaces it")
        written = [path for path in texts if path not in present or path in changed]
        for path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_file(path) as partial:
                partial.write_bytes(texts[path])
    except OSError as error:
        raise InputError(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    print(f"{target}: {len(written)} configs written, {len(texts) - len(written)} already there")
    return 0
