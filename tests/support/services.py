"""A service whose guard repeats the text that it judges, so that a swapped answer shows.

Run as a program, it serves until a signal: ``python -m tests.support.services BASE FOLDER TIMEOUT QUEUE``.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from guardreasoner.generators import Completion, Generator, Request
from guardreasoner.guard import Guard
from guardreasoner.guard.service.app import make_service_app
from guardreasoner.guard.service.judging import GuardService, ServiceLimits
from guardreasoner.model.backbone import Backbone
from guardreasoner.prompts import PromptFormat, answer_block
from guardreasoner.tasks import GUARD_TASKS, Task

KEY = "correct-horse-battery-staple"


class Echo(Generator):
    """An engine that reasons with the conversation itself, and calls it harmful if it has the word "break".

    Other words are orders: "mumble" gives no clear verdict, "explode" fails, "pause" takes half a second a batch.
    """

    needs_weights = False

    def generate_groups(self, requests: Iterable[Request]) -> Iterator[list[Completion]]:
        """Yield the answer to each request."""
        asked = [(request, request.text.partition("Human user:\n")[2]) for request in requests]
        if any("explode" in text for _, text in asked):
            raise RuntimeError("a secret of the conversation")
        if any("pause" in text for _, text in asked):
            time.sleep(0.5)
        for request, text in asked:
            label = "harmful" if "break" in text else "unharmful"
            verdicts = {"request": label, "completion": "compliance", "response": label}
            answer = "who knows" if "mumble" in text else answer_block(verdicts, GUARD_TASKS)
            yield [Completion(request.record_id, 0, f"{text.strip()}\n\n{answer}", "stop", None, 7)]


def echo_guard(base: Path, folder: Path, tasks: Sequence[Task] = GUARD_TASKS) -> Guard:
    """Return a guard with both speeds.

    Args:
        base: a tiny model; only its config and tokenizer are used.
        folder: folder to write, with the format of the guard; it may be there from another call.
        tasks: tasks of the guard; the engine answers those of GuardReasoner.
    """
    if not folder.exists():
        shutil.copytree(base, folder)
        format = PromptFormat(tuple(tasks), opening="Judge.", speeds=("reasoned", "direct"))
        (folder / "guard.json").write_text(json.dumps({"format": format.as_json()}))
    return Guard(Backbone(str(folder)), Echo())


def echo_service(base: Path, folder: Path, **limits: float) -> GuardService:
    """Return the service of that guard; the limits are those of :class:`ServiceLimits`."""
    return GuardService(echo_guard(base, folder), "echo", ServiceLimits(**limits))  # type: ignore[arg-type]


if __name__ == "__main__":
    from guardreasoner.guard.service.request_log import logged_to_stderr
    from guardreasoner.guard.service.server import open_socket, run_service
    from guardreasoner.workflow import stop_signals

    with stop_signals.handled(), open_socket("127.0.0.1", 0) as opened:
        limits = {"timeout": float(sys.argv[3]), "queue": int(sys.argv[4])}
        app = make_service_app(echo_service(Path(sys.argv[1]), Path(sys.argv[2]), **limits))
        with logged_to_stderr(texts=False):
            run_service(app, opened, limits["timeout"], lambda: print(opened.getsockname()[1], flush=True))
