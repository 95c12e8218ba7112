"""Rollouts that a mining run has committed survive a crash."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import COST, RolloutLog
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record, Rollout, read_rollouts

K = 3
RECORDS = [Record(f"r{number}", f"prompt {number}", labels={"request": "harmful"}) for number in range(8)]


def outputs(record: Record) -> list[Rollout]:
    return [Rollout(record.id, "m", "f", index, 0, f"é\u2028{record.id} {index}\n\nso") for index in range(K)]


PARTS = {"rollouts": K}
ALL_OUTPUTS = [rollout for record in RECORDS for rollout in outputs(record)]


def opened(folder: Path, setting: str = "same") -> RolloutLog:
    rollout_log = RolloutLog(folder / "out", {"setting": setting}, PARTS)
    rollout_log.prepare(RECORDS, PromptFormat())
    rollout_log.open(0, "cpu")
    return rollout_log


def shut(rollout_log: RolloutLog) -> None:
    rollout_log.close()
    rollout_log.release()


def append(rollout_log: RolloutLog, *numbers: int) -> None:
    """Commit the rollouts of the records with these numbers as one group."""
    rollout_log.append("rollouts", [rollout for number in numbers for rollout in outputs(RECORDS[number])], 0.5, 10)


def merged(rollout_log: RolloutLog) -> list[Rollout]:
    """Return the rollouts in the order of the records; the log is gone afterwards."""
    path = rollout_log.output.with_name("merged.jsonl")
    assert rollout_log.merge("rollouts", RECORDS, path) == 8 * K
    rollout_log.remove()
    return read_rollouts(path)


def test_groups_in_any_order_become_rows_in_the_order_of_the_records(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    for numbers in ((3, 1), (0, 2), (7, 6, 5), (4,)):
        append(rollout_log, *numbers)
    rollout_log.close()
    assert rollout_log.done("rollouts") == {record.id for record in RECORDS}
    rollout_log.write_cost(tmp_path)
    assert merged(rollout_log) == ALL_OUTPUTS
    assert sorted(os.listdir(tmp_path)) == [COST, "merged.jsonl"]
    cost = json.loads((tmp_path / COST).read_text())
    assert cost == {"seconds": 2.0, "device": "cpu", "devices": 1, "outputs": 8 * K, "tokens": 40}


def test_other_settings_use_another_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = opened(tmp_path)
    append(first, 0)
    shut(first)
    with caplog.at_level(logging.INFO, "guardreasoner"):
        other = opened(tmp_path, "different")
    assert other.done("rollouts") == set()
    (line,) = caplog.messages
    assert line.startswith(f"{first.folder}: 0.0 MB of an unfinished run with other settings")
    shut(other)
    assert opened(tmp_path).done("rollouts") == {"r0"}


def test_a_record_with_fewer_outputs_is_not_done(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    rollout_log.append("rollouts", outputs(RECORDS[0])[1:], 0.5, 10)
    assert rollout_log.done("rollouts") == set()


def test_parts_have_files_of_their_own(tmp_path: Path) -> None:
    rollout_log = RolloutLog(tmp_path / "out", {}, {"greedy": 1, "sampled": K})
    rollout_log.prepare(RECORDS, PromptFormat())
    rollout_log.open(0, "cpu")
    rollout_log.append("greedy", outputs(RECORDS[0])[:1], 0.5, 10)
    rollout_log.append("sampled", outputs(RECORDS[1]), 0.5, 10)
    assert (rollout_log.done("greedy"), rollout_log.done("sampled")) == ({"r0"}, {"r1"})
    assert list(rollout_log.read("greedy")) == outputs(RECORDS[0])[:1]
    assert list(rollout_log.read("sampled")) == outputs(RECORDS[1])


@given(st.data())
def test_wherever_a_shard_is_truncated_complete_commits_remain(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    groups = data.draw(st.permutations(range(8)).map(lambda order: [order[:3], order[3:4], order[4:]]))
    rollout_log, ends = written(folder, groups)
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(shard, cut)
    complete = sum(end <= cut for end in ends[1:])
    rollout_log = RolloutLog(folder / "out", {"setting": "same"}, PARTS)
    dropped = rollout_log.prepare(RECORDS, PromptFormat())
    assert (dropped > 0) == (cut > ends[complete])
    assert shard.stat().st_size == ends[complete]
    assert rollout_log.done("rollouts") == {f"r{number}" for group in groups[:complete] for number in group}
    rollout_log.open(0, "cpu")
    for group in groups[complete:]:
        append(rollout_log, *group)
    rollout_log.close()
    assert merged(rollout_log) == ALL_OUTPUTS


def written(folder: Path, groups: Sequence[Sequence[int]]) -> tuple[RolloutLog, list[int]]:
    """Commit groups of records; return the log and the offsets before the first and after each group."""
    rollout_log = opened(folder)
    ends = [0]
    for group in groups:
        append(rollout_log, *group)
        ends.append((rollout_log.folder / "rollouts-00000.jsonl").stat().st_size)
    shut(rollout_log)
    return rollout_log, ends


@settings(max_examples=50)
@given(st.data())
def test_a_flipped_bit_costs_the_groups_that_it_touches_and_is_reported(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    groups = [[0, 1, 2], [3], [4, 5, 6, 7]]
    rollout_log, ends = written(folder, groups)
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    content = bytearray(shard.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    shard.write_bytes(content)
    damaged = sum(end <= place for end in ends) - 1
    with pytest.MonkeyPatch.context() as patch:
        warnings: list[str] = []
        patch.setattr(logging.getLogger("guardreasoner"), "warning", lambda text, *values: warnings.append(text))
        rollout_log = RolloutLog(folder / "out", {"setting": "same"}, PARTS)
        dropped = rollout_log.prepare(RECORDS, PromptFormat())
    assert warnings or dropped
    # A flip in the line that ends a group, or in the newline before it, joins the group to the next one.
    is_end = place >= ends[damaged + 1] - 67
    lost = {damaged, damaged + 1} if is_end else {damaged}
    expected = {f"r{number}" for index, group in enumerate(groups) if index not in lost for number in group}
    assert expected <= rollout_log.done("rollouts") <= expected | {f"r{n}" for n in groups[min(damaged + 1, 2)]}
    rollout_log.open(0, "cpu")
    for record in RECORDS:
        if record.id not in rollout_log.done("rollouts"):
            append(rollout_log, RECORDS.index(record))
    rollout_log.close()
    assert merged(rollout_log) == ALL_OUTPUTS


def test_damage_during_a_run_is_reported(tmp_path: Path) -> None:
    rollout_log, _ = written(tmp_path, [[2], [3]])
    shard = rollout_log.folder / "rollouts-00000.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"r3", b"r4", 1))
    with pytest.raises(InputError, match=r"rollouts-00000.jsonl:5: damaged"):
        rollout_log.done("rollouts")


def test_each_process_has_a_shard(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    second = RolloutLog(tmp_path / "out", {"setting": "same"}, PARTS)
    second.open(1, "cpu")
    append(rollout_log, 0, 2, 4, 6)
    append(second, 7, 5, 3, 1)
    rollout_log.close()
    second.close()
    second.remove()  # it does not hold the lock
    rollout_log.write_cost(tmp_path)
    assert json.loads((tmp_path / COST).read_text())["devices"] == 2
    assert merged(rollout_log) == ALL_OUTPUTS


def test_only_the_run_that_holds_the_lock_changes_the_log(tmp_path: Path) -> None:
    first = opened(tmp_path)
    for committed in (False, True):
        if committed:
            append(first, 0)
        second = RolloutLog(tmp_path / "out", {"setting": "same"}, PARTS)
        with pytest.raises(InputError, match=r"another run is writing here \(process \d+ on "):
            second.prepare(RECORDS, PromptFormat())
        shut(second)
        second.remove()
        assert first.folder.is_dir()
    append(first, *range(1, 8))
    first.close()
    with pytest.raises(InputError, match="another run is writing here"):
        second.prepare(RECORDS, PromptFormat())  # it is locked until it is removed
    assert merged(first) == ALL_OUTPUTS
    opened(tmp_path).close()


def test_a_process_that_outlived_its_run_keeps_its_file(tmp_path: Path) -> None:
    first = opened(tmp_path)
    later = RolloutLog(tmp_path / "out", {"setting": "same"}, PARTS)
    later.open(1, "cpu")
    shut(first)
    with pytest.raises(InputError, match="another run is writing here"):
        opened(tmp_path)
    append(later, 5)
    later.close()
    assert opened(tmp_path).done("rollouts") == {"r5"}


def test_an_output_that_was_written_twice_is_reported(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log, 2)
    append(rollout_log, 2)
    rollout_log.close()
    with pytest.raises(InputError, match="output 0 of record 'r2' was written twice"):
        rollout_log.merge("rollouts", RECORDS, tmp_path / "merged.jsonl")


def test_a_log_without_commits_is_removed(tmp_path: Path) -> None:
    rollout_log = opened(tmp_path)
    append(rollout_log)  # an empty group commits nothing
    shut(rollout_log)
    assert not os.listdir(tmp_path)
