"""Mine, be killed with SIGKILL at a random moment, and continue, until a hundred runs were killed.

    python -m tests.support.kill_loop BASE FOLDER

compares the rows of every finished run with those of an uninterrupted one. The caller forks from this process, so it
must not have used torch's threads before.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

KILLS = 100


def main(base: str, folder: str) -> None:
    """Run the loop and print a summary."""
    import torch

    from guardreasoner.callbacks import RolloutWriter
    from guardreasoner.evaluation.guard_module import GuardModule
    from guardreasoner.generators.local import LocalGenerator
    from guardreasoner.model.backbone import Backbone
    from guardreasoner.training.reasoning_data import ReasoningDataModule
    from tests.support.tiny import TinySource, quiet_trainer

    torch.set_num_threads(1)

    def mine(name: str) -> None:
        module = GuardModule(Backbone(base), lambda b: LocalGenerator(b, 8, chunk=2, workers=1), k=2)
        data = ReasoningDataModule(TinySource(), chunk_size=7)
        trainer = quiet_trainer(callbacks=[RolloutWriter(f"{folder}/{name}")])
        trainer.predict(module, datamodule=data, return_predictions=False)

    def start(name: str) -> int:
        """Mine in a forked process; return its id."""
        if child := os.fork():
            return child
        code = 1
        try:
            mine(name)
            code = 0
        finally:
            os._exit(code)

    def exit_code(child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def rows(name: object) -> bytes:
        return Path(folder, str(name), "rollouts.jsonl").read_bytes()

    mine("uninterrupted")  # in this process, so that forked ones find all modules imported
    started = time.monotonic()
    assert exit_code(start("timed")) == 0
    duration = time.monotonic() - started
    assert rows("uninterrupted").count(b"\n") == 24 * 2
    rng = random.Random(0)
    kills = finished = resumed = 0
    # how many runs resume or finish depends on the machine's speed, so the loop goes on until enough did
    while kills < KILLS or resumed <= 20 or not finished:
        resumed += any(Path(folder).glob(f".{finished}.*.partial/rollouts-*.jsonl"))
        child = start(str(finished))
        time.sleep(rng.uniform(0, 1.1 * duration))
        os.kill(child, signal.SIGKILL)
        code = exit_code(child)
        assert code in (0, -signal.SIGKILL)
        kills += code == -signal.SIGKILL
        if code == 0:
            assert rows(finished) == rows("uninterrupted")
            finished += 1
    assert exit_code(start(str(finished))) == 0
    assert rows(finished) == rows("uninterrupted")
    print(f"{kills} kills, {finished + 1} finished runs, {resumed} resumed runs")


if __name__ == "__main__":
    main(*sys.argv[1:])
