"""What a mining run has committed outlives it, whatever ends it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import InputError
from guardreasoner.generators.rollout_log import COST, RolloutLog
from guardreasoner.records import Record, Rollout, read_records, read_rollouts
from guardreasoner.tasks import GUARD_TASKS

K = 3
RECORDS = [Record(f"r{number}", f"prompt {number}", labels={"request": "harmful"}) for number in range(8)]


def outputs(record: Record) -> list[Rollout]:
    return [Rollout(record.id, "m", "f", index, 0, f"é\u2028{record.id} {index}\n\nso") for index in range(K)]


def begun(folder: Path, decides: str = "this") -> RolloutLog:
    journal = RolloutLog(folder / "out", {"decides": decides})
    journal.prepare(RECORDS, GUARD_TASKS)
    journal.open(0, "cpu")
    return journal


def append(journal: RolloutLog, *numbers: int) -> None:
    journal.append([one for number in numbers for one in outputs(RECORDS[number])], 0.5, 10)


def test_parts_in_any_order_become_rows_in_the_order_of_the_records(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    for numbers in ((3, 1), (0, 2), (7, 6, 5), (4,)):
        append(journal, *numbers)
    journal.close()
    assert journal.done(K) == {record.id for record in RECORDS}
    assert journal.finish(RECORDS) == 8 * K
    assert read_rollouts(tmp_path / "out" / "rollouts.jsonl") == [one for record in RECORDS for one in outputs(record)]
    assert read_records(tmp_path / "out" / "records.jsonl") == RECORDS
    assert os.listdir(tmp_path) == ["out"]
    cost = json.loads((tmp_path / "out" / COST).read_text())
    assert cost == {"seconds": 2.0, "device": "cpu", "devices": 1, "outputs": 8 * K, "tokens": 40}


def test_what_decides_the_rows_names_the_journal(tmp_path: Path) -> None:
    first = begun(tmp_path)
    append(first, 0)
    first.close()
    other = begun(tmp_path, "something else")
    assert other.done(K) == set()
    other.close()
    assert begun(tmp_path).done(K) == {"r0"}


def test_fewer_outputs_than_are_wanted_are_not_done(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    append(journal, 0)
    assert journal.done(K + 1) == set()


@given(st.data())
def test_wherever_a_shard_is_cut_whole_parts_are_left(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    parts = data.draw(st.permutations(range(8)).map(lambda order: [order[:3], order[3:4], order[4:]]))
    journal = begun(folder)
    ends = [0]
    shard = journal.folder / "rollouts-00000.jsonl"
    for part in parts:
        append(journal, *part)
        ends.append(shard.stat().st_size)
    journal.close()
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(shard, cut)
    whole = sum(end <= cut for end in ends[1:])
    journal = RolloutLog(folder / "out", {"decides": "this"})
    dropped = journal.prepare(RECORDS, GUARD_TASKS)
    assert (dropped > 0) == (cut > ends[whole])
    assert shard.stat().st_size == ends[whole]
    assert journal.done(K) == {f"r{number}" for part in parts[:whole] for number in part}
    journal.open(0, "cpu")
    for part in parts[whole:]:
        append(journal, *part)
    journal.close()
    journal.finish(RECORDS)
    assert read_rollouts(folder / "out" / "rollouts.jsonl") == [one for record in RECORDS for one in outputs(record)]


def test_several_processes_have_a_shard_each(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    second = RolloutLog(tmp_path / "out", {"decides": "this"})
    second.open(1, "cpu")
    append(journal, 0, 2, 4, 6)
    append(second, 7, 5, 3, 1)
    journal.close()
    second.close()
    assert journal.finish(RECORDS) == 8 * K
    assert read_rollouts(tmp_path / "out" / "rollouts.jsonl") == [one for record in RECORDS for one in outputs(record)]
    assert json.loads((tmp_path / "out" / COST).read_text())["devices"] == 2


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    append(journal, 0)
    with pytest.raises(InputError, match="another run is writing here"):
        RolloutLog(tmp_path / "out", {"decides": "this"}).prepare(RECORDS, GUARD_TASKS)
    journal.close()
    begun(tmp_path).close()


def test_an_output_that_was_written_twice_is_named(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    append(journal, 2)
    append(journal, 2)
    journal.close()
    with pytest.raises(InputError, match="output 0 of record 'r2' was written twice"):
        journal.finish(RECORDS)
    assert not (tmp_path / "out").exists()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    append(journal, 2)
    journal.close()
    shard = journal.folder / "rollouts-00000.jsonl"
    shard.write_bytes(shard.read_bytes().replace(b"{", b"#", 1))
    with pytest.raises(InputError, match=r"rollouts-00000.jsonl:1: not valid JSON"):
        journal.done(K)


def test_nothing_committed_leaves_nothing(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.close()
    journal.discard_if_empty()
    assert not os.listdir(tmp_path)


def kill_a_hundred_times(base: str, out: str) -> None:
    """Mine, be killed with SIGKILL at a random moment, go on; compare the rows with those of a run in peace."""
    from guardreasoner.callbacks import RolloutWriter
    from guardreasoner.evaluation.guard_module import GuardModule
    from guardreasoner.generators.local import LocalGenerator
    from guardreasoner.model.backbone import Backbone
    from guardreasoner.training.reasoning_data import ReasoningDataModule
    from tests.support.tiny import TinySource, quiet_trainer

    def mine(name: str) -> None:
        module = GuardModule(Backbone(base), lambda b: LocalGenerator(b, 8, chunk=2, workers=1), k=2)
        data = ReasoningDataModule(TinySource(), chunk_size=7)
        trainer = quiet_trainer(callbacks=[RolloutWriter(f"{out}/{name}")])
        trainer.predict(module, datamodule=data, return_predictions=False)

    def start(name: str) -> int:
        """Mine in a process of its own; return its number."""
        if child := os.fork():
            return child
        code = 1
        try:
            mine(name)
            code = 0
        finally:
            os._exit(code)

    def end(child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def rows(name: object) -> bytes:
        return Path(out, str(name), "rollouts.jsonl").read_bytes()

    mine("whole")  # all that is imported late is there for those to come
    began = time.monotonic()
    assert end(start("timed")) == 0
    lasts = time.monotonic() - began
    assert len(read_rollouts(Path(out, "whole", "rollouts.jsonl"))) == 24 * 2
    rng = random.Random(0)
    kills = finished = went_on = 0
    while kills < 100:
        went_on += any(Path(out).glob(f".{finished}.*.partial/rollouts-*.jsonl"))
        child = start(str(finished))
        time.sleep(rng.uniform(0, 1.1 * lasts))
        os.kill(child, signal.SIGKILL)
        code = end(child)
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        if code == 0:
            assert rows(finished) == rows("whole")
            finished += 1
    assert end(start(str(finished))) == 0
    assert rows(finished) == rows("whole")
    assert finished
    assert went_on > 20
    print(f"{kills} kills, {finished + 1} runs to their end, {went_on} that went on")


def test_a_hundred_kills_at_any_moment_change_no_byte(tiny_base: Path, tmp_path: Path) -> None:
    # forked from a process that has used no threads of torch
    program = "import sys, torch; torch.set_num_threads(1); "
    program += "from tests.generators.test_rollout_log import kill_a_hundred_times as f; "
    command = [sys.executable, "-c", f"{program} f(*sys.argv[1:])", str(tiny_base), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith("100 kills"), done.stderr
