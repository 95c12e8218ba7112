"""Rollouts that a mining run has committed survive a crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import COST, RolloutLog
from guardreasoner.records import Record, Rollout, read_records, read_rollouts
from guardreasoner.tasks import GUARD_TASKS
from tests.support.bit_flips import unnoticed_flips

K = 3
RECORDS = [Record(f"r{number}", f"prompt {number}", labels={"request": "harmful"}) for number in range(8)]


def outputs(record: Record) -> list[Rollout]:
    return [Rollout(record.id, "m", "f", index, 0, f"é\u2028{record.id} {index}\n\nso") for index in range(K)]


ALL_OUTPUTS = [rollout for record in RECORDS for rollout in outputs(record)]


def opened(folder: Path, setting: str = "same") -> RolloutLog:
    rollout_log = RolloutLog(folder / "out", {"setting": setting})
    rollout_log.prepare(RECORDS, GUARD_TASKS)
    rollout_log.open(0, "cpu")
    return rollout_log


def append(rollout_log: RolloutLog, *numbers: int) -> None:
    """Commit the rollouts of the records with these numbers as one group."""
    rollout_log.append([rollout for number in numbers for rollout in outputs(RECORDS[number])], 0.5, 10)


def test_groups_in_any_order_become_rows_in_the_order_of_the_records(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    for numbers in ((3, 1), (0, 2), (7, 6, 5), (4,)):
        append(rollout_log, *numbers)
    rollout_log.close()
    assert rollout_log.done(K) == {record.id for record in RECORDS}
    assert rollout_log.finish(RECORDS) == 8 * K
    assert read_rollouts(tmp_path / "out" / "rollouts.jsonl") == ALL_OUTPUTS
    assert read_records(tmp_path / "out" / "records.jsonl") == RECORDS
    assert os.listdir(tmp_path) == ["out"]
    cost = json.loads((tmp_path / "out" / COST).read_text())
    assert cost == {"seconds": 2.0, "device": "cpu", "devices": 1, "outputs": 8 * K, "tokens": 40}


def test_other_settings_use_another_log(tmp_path: Path) -> None:
    first = opened(tmp_path)
    append(first, 0)
    first.close()
    other = opened(tmp_path, "different")
    assert other.done(K) == set()
    other.close()
    assert opened(tmp_path).done(K) == {"r0"}


def test_a_record_with_fewer_than_k_outputs_is_not_done(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log, 0)
    assert rollout_log.done(K + 1) == set()


@given(st.data())
def test_wherever_a_shard_is_truncated_complete_commits_remain(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    groups = data.draw(st.permutations(range(8)).map(lambda order: [order[:3], order[3:4], order[4:]]))
    rollout_log = opened(folder)
    ends = [0]
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    for group in groups:
        append(rollout_log, *group)
        ends.append(shard.stat().st_size)
    rollout_log.close()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(shard, cut)
    complete = sum(end <= cut for end in ends[1:])
    rollout_log = RolloutLog(folder / "out", {"setting": "same"})
    dropped = rollout_log.prepare(RECORDS, GUARD_TASKS)
    assert (dropped > 0) == (cut > ends[complete])
    assert shard.stat().st_size == ends[complete]
    assert rollout_log.done(K) == {f"r{number}" for group in groups[:complete] for number in group}
    rollout_log.open(0, "cpu")
    for group in groups[complete:]:
        append(rollout_log, *group)
    rollout_log.close()
    rollout_log.finish(RECORDS)
    assert read_rollouts(folder / "out" / "rollouts.jsonl") == ALL_OUTPUTS


def test_each_process_has_a_shard(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    second = RolloutLog(tmp_path / "out", {"setting": "same"})
    second.open(1, "cpu")
    append(rollout_log, 0, 2, 4, 6)
    append(second, 7, 5, 3, 1)
    rollout_log.close()
    second.close()
    assert rollout_log.finish(RECORDS) == 8 * K
    assert read_rollouts(tmp_path / "out" / "rollouts.jsonl") == ALL_OUTPUTS
    assert json.loads((tmp_path / "out" / COST).read_text())["devices"] == 2


def test_two_runs_cannot_write_to_one_log(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log, 0)
    with pytest.raises(InputError, match="another run is writing here"):
        RolloutLog(tmp_path / "out", {"setting": "same"}).prepare(RECORDS, GUARD_TASKS)
    rollout_log.close()
    opened(tmp_path).close()


def test_an_output_that_was_written_twice_is_reported(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log, 2)
    append(rollout_log, 2)
    rollout_log.close()
    with pytest.raises(InputError, match="output 0 of record 'r2' was written twice"):
        rollout_log.finish(RECORDS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("old", "new"), [(b"{", b"#"), (b"so", b"sO"), (b'"sha256": "', b'"sha256": "0')])
def test_damaged_outputs_are_sampled_again(
    old: bytes, new: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rollout_log = opened(tmp_path)
    for number in range(8):
        append(rollout_log, number)
    rollout_log.close()
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    commits = shard.read_bytes().split(b"\n\n")
    commits[2] = commits[2].replace(old, new, 1)
    shard.write_bytes(b"\n\n".join(commits))
    with pytest.raises(InputError, match=r"rollouts-00000\.jsonl:11: the outputs committed here are damaged"):
        rollout_log.finish(RECORDS)
    again = opened(tmp_path)
    assert "rollouts-00000.jsonl:11: damaged outputs, which are sampled again" in caplog.text
    assert again.done(K) == {record.id for record in RECORDS} - {"r2"}
    append(again, 2)
    again.close()
    again.finish(RECORDS)
    assert read_rollouts(tmp_path / "out" / "rollouts.jsonl") == ALL_OUTPUTS


def test_commits_of_earlier_versions_have_no_hash(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log, 2)
    rollout_log.close()
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    shard.write_bytes(b"".join(line for line in shard.read_bytes().splitlines(True) if b"sha256" not in line))
    assert opened(tmp_path).done(K) == {"r2"}


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    for number in range(8):
        append(rollout_log, number)
    rollout_log.close()
    everything = rollout_log.done(K)

    def read() -> bool:
        again = RolloutLog(tmp_path / "out", {"setting": "same"})
        lost = again.prepare(RECORDS, GUARD_TASKS) > 0
        return lost or again.done(K) < everything

    assert unnoticed_flips(rollout_log.folder / "rollouts-00000.jsonl", read, 40) == []


def test_a_log_without_commits_is_removed(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log)  # an empty group commits nothing
    rollout_log.close()
    rollout_log.discard_if_empty()
    assert not os.listdir(tmp_path)


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_change_no_byte(tiny_base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.kill_loop", str(tiny_base), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) >= 100
