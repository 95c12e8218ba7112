import json
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.errors import InputError
from guardreasoner.mining.findings import SamplingCost
from guardreasoner.records import Record, Rollout, Split, write_jsonl
from guardreasoner.sources.rollouts import (
    read_costs,
    read_rollout_folders,
    read_rollouts_of,
    read_training_rollouts,
)

RECORDS = [Record("a", "A?", None, {"request": "harmful"}), Record("b", "B?", "B.", {"response": "harmful"})]
ROLLOUTS = [Rollout(name, "m", "f", index, 0, "…") for name in "ab" for index in range(2)]


class ListSource:
    """A source of given training records."""

    def __init__(self, records: list[Record]) -> None:
        self.train = records

    def records(self, split: Split) -> list[Record]:
        return self.train if split == "train" else []


def folder(path: Path, records: list[Record] = RECORDS, rollouts: list[Rollout] = ROLLOUTS) -> Path:
    write_jsonl(path / "records.jsonl", records)
    write_jsonl(path / "rollouts.jsonl", rollouts)
    return path


def test_a_folder_of_records_and_rollouts(tmp_path: Path) -> None:
    assert read_rollout_folders([folder(tmp_path)]) == (RECORDS, ROLLOUTS)


def test_several_folders_are_merged(tmp_path: Path) -> None:
    other = [replace(RECORDS[1], reasoning="why"), Record("c", "C?", None, {"request": "harmful"})]
    rollouts = [Rollout("c", "n", "f", 0, 0, "…")]
    records, outputs = read_rollout_folders([folder(tmp_path / "1"), folder(tmp_path / "2", other, rollouts)])
    assert records == [*RECORDS, other[1]]
    assert outputs == ROLLOUTS + rollouts


def test_the_rollouts_of_a_record_may_be_anywhere(tmp_path: Path) -> None:
    rollouts = [Rollout(name, model, "f", index, 0, "…") for index in range(2) for name in "ba" for model in "nm"]
    folders = [
        folder(tmp_path / "1", RECORDS, rollouts[::3]),
        folder(tmp_path / "2", RECORDS[::-1], [*rollouts[1::3], *rollouts[2::3]]),
    ]
    records, read = read_training_rollouts(folders, ListSource(RECORDS))
    assert records == RECORDS
    assert read == [*rollouts[::3], *rollouts[1::3], *rollouts[2::3]]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(RECORDS[0], prompt="Z?"), "record 'a' is another conversation than in"),
        (replace(RECORDS[0], response="Z."), "record 'a' is another conversation than in"),
        (replace(RECORDS[0], labels={"request": "unharmful"}), "record 'a' has other labels than in"),
    ],
)
def test_an_id_with_two_conversations_or_labels_is_refused(tmp_path: Path, other: Record, what: str) -> None:
    with pytest.raises(InputError, match=what):
        read_rollout_folders([folder(tmp_path / "1"), folder(tmp_path / "2", [other])])


def test_missing_files_give_the_command_that_writes_them(tmp_path: Path) -> None:
    for path, what in (
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path, "neither rollouts.jsonl nor predictions"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            read_rollout_folders([path])
        assert "predict --config configs/mine.yaml" in (caught.value.hint or "")
    (folder(tmp_path) / "records.jsonl").unlink()
    with pytest.raises(InputError, match=r"no records\.jsonl here"):
        read_rollout_folders([tmp_path])
    with pytest.raises(InputError, match="give the folder that holds"):
        read_rollout_folders([tmp_path / "rollouts.jsonl"])


def test_rollouts_must_belong_to_the_source(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert read_rollouts_of([path], ListSource(RECORDS)) == ROLLOUTS
    with pytest.raises(InputError, match=r"belong to other records: 'b' is no record of data\.source"):
        read_rollouts_of([path], ListSource(RECORDS[:1]))
    with pytest.raises(InputError, match="belong to other records: 'a' is another conversation"):
        read_rollouts_of([path], ListSource([replace(RECORDS[0], prompt="Z?"), RECORDS[1]]))


def test_rollouts_of_excluded_records_are_dropped(tmp_path: Path) -> None:
    source = ListSource(RECORDS[:1])
    source.excluded_ids = ["b"]  # type: ignore[attr-defined]
    assert read_rollouts_of([folder(tmp_path)], source) == ROLLOUTS[:2]


def test_prediction_folders_are_read_as_rollouts(shared_data: Path) -> None:
    folders = [shared_data / "predictions" / name for name in ("1B", "3B")]
    records, rollouts = read_rollout_folders(folders)
    assert (len(records), len(rollouts)) == (2195, 4390)


def test_training_rollouts_are_those_of_training_records(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert read_training_rollouts([path], ListSource(RECORDS)) == (RECORDS, ROLLOUTS)

    class TrainAndTestSource(ListSource):
        def records(self, split: Split) -> list[Record]:
            return RECORDS[:1] if split == "train" else RECORDS[1:] if split == "test" else []

    assert read_training_rollouts([path], TrainAndTestSource([])) == (RECORDS[:1], ROLLOUTS[:2])
    with pytest.raises(InputError, match=r"data\.rollouts: .*: no output for a training record"):
        read_training_rollouts([folder(tmp_path / "b", RECORDS[1:], ROLLOUTS[2:])], TrainAndTestSource([]))


def test_costs_are_summed_by_device(tmp_path: Path) -> None:
    assert read_costs([tmp_path]) == []
    for name, device, seconds in (("1", "cuda:0", 1.5), ("2", "cuda", 2), ("3", "cpu", 10)):
        (tmp_path / name).mkdir()
        cost = {"seconds": seconds, "device": device, "devices": 1, "tokens": 100, "outputs": 4}
        (tmp_path / name / "cost.manifest.json").write_text(json.dumps(cost))
    costs = read_costs([tmp_path / name for name in "1234"])
    assert costs == [SamplingCost("CPU", 10.0, 100, 4, 1, 4), SamplingCost("GPU", 3.5, 200, 8, 2, 4)]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("", ""),
        ("[]", ""),
        ("{}", "missing field 'seconds'"),
        ('{"seconds": NaN, "device": "cpu", "tokens": 1, "outputs": 1}', "seconds: "),
        ('{"seconds": 1, "device": 3, "tokens": 1, "outputs": 1}', "device: "),
        ('{"seconds": -1, "device": "cpu", "tokens": 1}', "seconds: "),
    ],
)
def test_a_damaged_cost_file_is_refused_with_file_and_field(tmp_path: Path, content: str, field: str) -> None:
    path = tmp_path / "cost.manifest.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_costs([tmp_path])
    assert str(caught.value).startswith(f"{path}: {field}")
    assert "\n" not in str(caught.value)
