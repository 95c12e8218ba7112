"""Flip single bits in artefacts, one at a time, and count those that a reader lets pass."""

import os
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from guardreasoner.errors import InputError


@dataclass(frozen=True)
class Flip:
    """A flipped bit.

    Args:
        file: the file, which has its old content again.
        byte: offset.
        bit: 0 to 7.
    """

    file: Path
    byte: int
    bit: int


def unnoticed_flips(
    artefact: Path, read: Callable[[], bool], count: int, seed: int = 0, ignored: Collection[str] = ("manifest.json",)
) -> list[Flip]:
    """Flip random bits in the files of an artefact, restoring each, and return the flips that were not noticed.

    The file is drawn first, so that small files are damaged as often as large ones.

    Args:
        artefact: file or folder.
        read: reads the artefact as the product does. It raises ``InputError`` if it finds damage, and returns True if
            it repaired the artefact with an equal result or logged what is damaged. Other errors are raised.
        count: number of flips.
        seed: of the places; the environment variable BIT_FLIPS_SEED is added to it.
        ignored: names of files to leave alone.
    """
    found = sorted(artefact.rglob("*")) if artefact.is_dir() else [artefact]
    contents = {file: file.read_bytes() for file in found if file.is_file() and file.name not in ignored}
    files = [file for file, content in contents.items() if content]
    places = random.Random(seed + int(os.environ.get("BIT_FLIPS_SEED", "0")))
    unnoticed = []
    for number in range(count):
        file = places.choice(files)
        flip = Flip(file, places.randrange(len(contents[file])), places.randrange(8))
        damaged = bytearray(contents[file])
        damaged[flip.byte] ^= 1 << flip.bit
        _write(file, bytes(damaged), 2 * number)
        try:
            if not read():
                unnoticed.append(flip)
        except InputError:
            pass
        _write(file, contents[file], 2 * number + 1)
    return unnoticed


def _write(file: Path, content: bytes, number: int) -> None:
    """Write a file with a time of its own, since clocks are too coarse to tell two quick writes apart."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")  # the old file may be mapped into memory
    new.write_bytes(content)
    os.utime(new, ns=(0, 10**18 + number))
    new.replace(file)
