"""A checkpoint is a file on this machine; addresses and names in registries are refused."""

from pathlib import Path

import pytest

from guardreasoner.cli.checkpoint_path import local_checkpoint
from guardreasoner.errors import InputError

REMOTE = (
    *("http://127.0.0.1:1/x.ckpt", "HTTPS://host/x.ckpt", "s3://bucket/x.ckpt", "hf://me/repo/x.ckpt", "gs://b/x"),
    *(
        "file:///tmp/x.ckpt",
        "memory://x",
        "simplecache::http://host/x",
        "zip://x.ckpt::http://host/a.zip",
        " http://h/x",
    ),
    *("registry", "registry:model", "Registry:model:version:1", "http:x.ckpt", "github://org:repo@/x", "://x"),
)


@pytest.mark.parametrize("path", REMOTE)
def test_addresses_are_refused(path: str) -> None:
    with pytest.raises(InputError, match="ckpt_path: expected a file on this machine, got"):
        local_checkpoint(path)


def test_local_files_get_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("last.ckpt", "httpd.ckpt", "step=3.ckpt", "registry-of-mine.ckpt", "a:b.ckpt"):
        Path(name).touch()
        assert local_checkpoint(name) == str(tmp_path / name)
    assert local_checkpoint(None) is None
    assert local_checkpoint("best") == "best"
