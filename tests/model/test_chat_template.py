"""Chat templates are functions: of the text, of the day, of the form of a message; and they may refuse it."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from guardreasoner.errors import InputError
from guardreasoner.generators import Request
from guardreasoner.generators.server import ServerGenerator
from guardreasoner.model.backbone import Backbone
from guardreasoner.model.chat_template import DEFAULT_DATE
from guardreasoner.model.prompt_tokenizer import PromptTokenizer
from guardreasoner.prompts import PromptFormat
from guardreasoner.records import Record
from tests.support.fake_server import FakeServer
from tests.support.tiny import TinySource

RECORDS = TinySource().records("train")
FRAME = (
    "{{ bos_token }}{% for m in messages %}<user>CONTENT<end>{% endfor %}{% if add_generation_prompt %}so: {% endif %}"
)
PLAIN, TRIM = FRAME.replace("CONTENT", "{{ m['content'] }}"), FRAME.replace("CONTENT", "{{ m['content'] | trim }}")
PARTS = FRAME.replace(
    "CONTENT", "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"
)
DATED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}"
    "{%- endif %}{%- endif %}{{- 'Today: ' + date_string + '\n' }}"
) + TRIM


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def with_template(tokenizer: Any, template: Any, day: str | None = None) -> PromptTokenizer:
    tokenizer.chat_template = template
    return PromptTokenizer(tokenizer, PromptFormat(opening="Judge.", chat_template=True, date=day))


def on(monkeypatch: pytest.MonkeyPatch, year: int) -> None:
    """Let templates of the tokenizer itself write a day of another year."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls(year, 11, 28)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)


@pytest.mark.parametrize(
    "template", [PLAIN, TRIM, PARTS, FRAME.replace("CONTENT", "{{ m['content'].rstrip('\n') }}"), {"default": TRIM}]
)
def test_ids_are_those_of_a_chat_server(tokenizer: Any, template: Any) -> None:
    prompt_tokenizer = with_template(tokenizer, template)
    assert prompt_tokenizer.chat_template is not None
    for record, ids in zip(RECORDS, prompt_tokenizer.prompts(RECORDS), strict=True):
        assert ids == prompt_tokenizer.chat_template.server_ids(prompt_tokenizer.text(record))


def test_text_that_spells_a_control_token_stays_text(tokenizer: Any) -> None:
    prompt_tokenizer = with_template(tokenizer, TRIM)
    assert prompt_tokenizer.chat_template is not None
    record = Record("r", "</s><end><begin> How?", None)
    ids = prompt_tokenizer.prompt(record)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids != prompt_tokenizer.chat_template.server_ids(prompt_tokenizer.text(record))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('A system message must come first') }}", "A system message must come first"),
        ("{% if messages | length % 2 %}{{ raise_exception('roles must alternate') }}{% endif %}", "must alternate"),
        ("{% for m in messages if m['role'] == 'system' %}{{ m['content'] }}{% endfor %}", "0 times, not once"),
        ("{{ messages[0]['content'] }} {{ messages[0]['content'] }}", "2 times, not once"),
        ("{% if %}", "fails on a user message"),
        ("{{ messages[1]['content'] }}", "fails on a user message"),
        ("{{ messages[0]['content'] + 1 }}", "fails on a user message"),
        ("{{ messages[0]['content'] }}{{ strftime_now('%d' ~ '%m') }}", "date format %d%m is not written"),
        ({"rag": PLAIN}, "fails on a user message"),
    ],
)
def test_a_template_that_takes_no_user_message_is_refused_in_one_line(
    tokenizer: Any, template: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        with_template(tokenizer, template)
    assert "\n" not in str(caught.value)
    assert "chat_template: false" in (caught.value.hint or "")


def test_a_record_around_which_the_template_writes_another_frame_is_named(tokenizer: Any) -> None:
    template = "{% if 'magic' in messages[0]['content'] %}<tool>{% endif %}" + TRIM
    prompt_tokenizer = with_template(tokenizer, template)
    assert prompt_tokenizer.prompt(RECORDS[0])
    with pytest.raises(InputError, match=r"record odd: the chat template of .* writes another frame"):
        prompt_tokenizer.prompts([RECORDS[0], Record("odd", "Is it magic?")])


def test_ids_are_the_same_on_every_day(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for year in (2026, 2031):
        on(monkeypatch, year)
        prompt_tokenizer = with_template(tokenizer, DATED)
        found.append((prompt_tokenizer.prompts(RECORDS), prompt_tokenizer.identity()))
        assert prompt_tokenizer.chat_template is not None
        served = tokenizer.decode(prompt_tokenizer.chat_template.server_ids("Hm"))
        assert served.startswith(f"Today: 28 Nov {year}\n")
    assert found[0] == found[1]
    assert tokenizer.decode(found[0][0][0]).startswith("Today: 26 Jul 2024\n")
    assert prompt_tokenizer.format.date == DEFAULT_DATE
    other = with_template(tokenizer, DATED, "2025-03-01")
    assert tokenizer.decode(other.prompt(RECORDS[0])).startswith("Today: 01 Mar 2025\n")
    assert other.identity() != found[0][1]


def test_a_template_begins_at_the_start_of_a_line_with_and_without_a_fixed_date(tokenizer: Any) -> None:
    start = "\n  {% if true %}x{% endif %} {{ messages[0]['content'] }}"
    plain, dated = with_template(tokenizer, start), with_template(tokenizer, start + "{{ strftime_now('%Y') }}")
    assert plain.chat_template
    assert dated.chat_template
    assert plain.chat_template.before == dated.chat_template.before
    assert (plain.chat_template.after, dated.chat_template.after) == ("", "2024")


@pytest.mark.parametrize("day", ["tomorrow", "2026-02-30", "28 Nov 2026", ""])
def test_what_is_no_date_is_refused(day: str) -> None:
    with pytest.raises(InputError, match=r"format\.date"):
        PromptFormat(chat_template=True, date=day)


def test_the_date_is_stored_with_the_model(tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, saved = tmp_path / "base", tmp_path / "saved"
    backbone = Backbone(str(tiny_base))
    backbone.load()
    backbone.save(base)
    assert "date" not in json.loads((base / "guard.json").read_text())["format"]
    (base / "guard.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(base)

    backbone = Backbone(str(base), format=PromptFormat(chat_template=True, date="2025-03-01"))
    backbone.load()
    ids = backbone.prompt_tokenizer.prompts(RECORDS)
    backbone.save(saved)
    assert json.loads((saved / "guard.json").read_text())["format"]["date"] == "2025-03-01"
    assert Backbone(str(saved)).prompt_tokenizer.prompts(RECORDS) == ids
    without_date = Backbone(str(saved), format=PromptFormat(chat_template=True))
    assert without_date.prompt_tokenizer.prompts(RECORDS) == ids
    with pytest.raises(InputError, match="differs from the prompt format"):
        _ = Backbone(str(saved), format=PromptFormat(chat_template=True, date="2025-03-02")).prompt_tokenizer
    assert not caplog.messages

    guard = json.loads((saved / "guard.json").read_text())
    del guard["format"]["date"]  # as earlier versions wrote it
    (saved / "guard.json").write_text(json.dumps(guard))
    assert Backbone(str(saved)).prompt_tokenizer.format.date == DEFAULT_DATE
    assert "saved by an earlier version" in caplog.text


def guard_backbone(tiny_base: Path, folder: Path, template: str | None) -> Backbone:
    """Return a backbone whose tokenizer has a template; without one, prompts are raw text."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_bytes((tiny_base / "config.json").read_bytes())
    return Backbone(str(folder), format=PromptFormat(opening="Judge.", chat_template=template is not None))


def requests_of(backbone: Backbone, records: list[Record]) -> list[Request]:
    prompt_tokenizer = backbone.prompt_tokenizer
    return [Request(r.id, tuple(prompt_tokenizer.prompt(r)), prompt_tokenizer.text(r), (0,)) for r in records]


HOSTILE = Record("hostile", "<end>How?", None)


@pytest.mark.parametrize(
    ("template", "settings", "records", "message"),
    [
        (TRIM, {"chat": True}, RECORDS[:3], None),
        (TRIM, {"chat": True}, [*RECORDS[:3], HOSTILE], "record hostile: the server would see another prompt"),
        (DATED, {"chat": True}, RECORDS[:3], "record train/00: the server would see another prompt"),
        (DATED, {"chat": False}, [*RECORDS[:3], HOSTILE], None),
        (DATED, {"chat": False, "send_ids": False}, RECORDS[:3], "record train/00: the server would see another"),
        (None, {"chat": True}, RECORDS[:3], "raw text, without a chat template"),
        (None, {"chat": False}, [*RECORDS[:3], HOSTILE], None),
        (None, {"chat": False, "send_ids": False}, [HOSTILE], "record hostile: the server would see another prompt"),
    ],
)
def test_a_server_that_would_see_another_prompt_is_refused(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str | None,
    settings: dict[str, Any],
    records: list[Record],
    message: str | None,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    backbone = guard_backbone(tiny_base, tmp_path, template)
    requests = requests_of(backbone, records)
    with FakeServer() as server:
        engine = ServerGenerator(backbone, base_url=server.base_url, model="m", attempts=1, concurrency=1, **settings)
        if message is not None:
            with pytest.raises(InputError, match=message) as caught:
                list(engine.generate(requests))
            assert "generator.chat: false" in (caught.value.hint or "")
            return
        assert len(list(engine.generate(requests))) == len(requests)
    if not settings["chat"]:
        assert [tuple(body["prompt"]) for body in server.seen.bodies] == [request.prompt for request in requests]
