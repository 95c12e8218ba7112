"""Judge a response while it is written: after each sentence, the text so far gets a direct answer."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from guardreasoner.errors import InputError
from guardreasoner.guard.results import GuardResult, task_flags
from guardreasoner.tasks import Task

_CLOSING = r"[)\]}\"'”’»*_`」』）】》〉]*"
"""Brackets, quotation marks and Markdown marks that may follow the end of a sentence and belong to it."""

_END = re.compile(
    rf"[.!?…؟۔।॥]+{_CLOSING}(?=\s)"
    rf"|[.!?…]*[。！？｡]+{_CLOSING}(?=[^.!?…。！？｡)\]}}\"'”’»*_`」』）】》〉])"
    r"|(?=\s*[\n\r])"
)
"""The end of a sentence. It is only found once the character after it is known, so it does not depend on the pieces in
which a text arrives."""


@dataclass(frozen=True, slots=True)
class JudgedSentence:
    """The judgement of a response up to the end of a sentence.

    Args:
        text: the sentence, with the white space before it. Joined, the sentences are the response without the white
            space at its end.
        end: number of characters of the response that were judged, this sentence included.
        result: what :meth:`Guard.check` returns for the response so far at the direct speed.
        flagged: whether to stop here: a task that judges the response flags it, or a verdict is missing. A request that
            is flagged does not count, since ``result.flagged`` would then stop every response to it.
    """

    text: str
    end: int
    result: GuardResult
    flagged: bool


class GuardStream:
    """A response that is judged while it is written; see :meth:`Guard.stream`. It is not thread-safe.

    Args:
        judge: returns the result for a response.
        tasks: tasks of the model.
        max_sentence: largest number of characters of a sentence, without the white space before it.
    """

    def __init__(self, judge: Callable[[str], GuardResult], tasks: tuple[Task, ...], max_sentence: int) -> None:
        if isinstance(max_sentence, bool) or not isinstance(max_sentence, int) or max_sentence < 1:
            raise InputError(f"max_sentence: found {max_sentence!r}, expected a number of characters, 1 or more")
        self._judge = judge
        self._tasks = [task for task in tasks if task.flags and judges_response(task)]
        self._max_sentence = max_sentence
        self._finished = False
        self._judged = 0
        self._start = 0
        self.text = ""
        """The response so far."""

    def feed(self, piece: str) -> Iterator[JudgedSentence]:
        """Add a piece of the response; return an iterator that judges the sentences that are complete.

        The piece is added at once, and each sentence is judged when the iterator gets to it. A sentence that was not
        judged, because the iterator was left or the guard raised an error, is judged at the next call.

        Raises:
            InputError: the piece is no text, the response was finished, or :meth:`Guard.check` raises it.
            UnparsedError: the answer has no clear verdict, and the guard was told to raise.
        """
        self.append(piece)
        return iter(self.judge_next, None)

    def finish(self) -> Iterator[JudgedSentence]:
        """End the response; return an iterator that judges what is left; raises the same errors as :meth:`feed`."""
        self._finished = True
        return iter(self.judge_next, None)

    def append(self, piece: str) -> None:
        """Add a piece of the response without judging it.

        Raises:
            InputError: the piece is no text, or the response was finished.
        """
        if not isinstance(piece, str):
            raise InputError(f"piece: found {type(piece).__name__}, expected text")
        if self._finished:
            raise InputError("piece: the response was finished, expected no more text")
        self.text += piece

    @property
    def has_sentence(self) -> bool:
        """Whether a sentence is complete and was not judged."""
        return self._end() is not None

    def judge_next(self) -> JudgedSentence | None:
        """Judge the next sentence; return None if none is complete; raises the same errors as :meth:`feed`."""
        end = self._end()
        if end is None:
            return None
        result = self._judge(self.text[:end])
        flagged = result.unparsed or any(task_flags(result.tasks[task.name], task) for task in self._tasks)
        sentence = JudgedSentence(self.text[self._judged : end], end, result, flagged)
        self._judged = self._start = end  # not before the result is there: an error leaves the sentence to be judged
        return sentence

    def _end(self) -> int | None:
        """Return the end of the next sentence; None if it is not complete."""
        while self._start < len(self.text) and self.text[self._start].isspace():
            self._start += 1
        end = sentence_end(self.text, self._start, self._max_sentence)
        if end is None and self._finished and self._start < len(self.text):
            return len(self.text.rstrip())
        return end


def sentence_end(text: str, start: int, most: int) -> int | None:
    """Return the index after the last character of a sentence; None if its end cannot be known yet.

    A sentence ends after ``.``, ``!``, ``?`` or ``…`` before white space, after the full stop of a script without
    spaces (``。``), and at the end of a line. A longer one than ``most`` ends at the last white space before or, if
    there is none, after ``most`` characters. Abbreviations end a sentence too, which only judges the text once more.

    Args:
        text: the text so far.
        start: index of the first character of the sentence, no white space.
        most: largest number of characters.
    """
    window = text[start : start + most + 1]
    found = _END.search(window)
    if found is not None and found.end() <= most:
        return start + found.end()
    if len(window) <= most:
        return None
    words = window[:most].rstrip() if window[most].isspace() else re.sub(r"\s+\S*\Z", "", window[:most])
    return start + len(words)


def judges_response(task: Task) -> bool:
    """Return whether the verdict of a task depends on the response."""
    return task.judges in ("last_assistant", "conversation")
