"""Our GRPO makes the updates that TRL's makes, on the same outputs and rewards."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from grpo_vs_trl import compare, differs

pytestmark = pytest.mark.slow


def test_two_updates_equal_those_of_trl(tmp_path: Path) -> None:
    if not find_spec("trl"):
        pytest.skip("TRL is not installed (pip install -e '.[bench]')")
    rows = compare(tmp_path)
    assert len(rows) == 6
    assert [row for row in rows if differs(row)] == []
    assert len({row["trl_loss"] for row in rows}) == 6
    assert all(len(row["lengths"]) > 2 for row in rows)
    assert min(row["moved"] for row in rows) > 1e-3
