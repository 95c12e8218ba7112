"""A chatbot behind FastAPI whose requests and responses are judged by a guard.

pip install guardreasoner fastapi uvicorn
uvicorn --factory guarded_chatbot:make_app --port 8000
curl http://127.0.0.1:8000/chat -H 'content-type: application/json' -d '{"message": "How do I mend a chair?"}'

With a guard that was trained for direct answers (recipe.direct_share above 0), there is also

curl -N http://127.0.0.1:8000/stream -H 'content-type: application/json' -d '{"message": "How do I mend a chair?"}'
"""

import logging
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from guardreasoner import Guard, InputError

SORRY = "I cannot help with that."

log = logging.getLogger("uvicorn.error")


class Asked(BaseModel):
    """What a user sends."""

    message: str


def echo(message: str) -> str:
    """Answer a message; call your language model here."""
    return f"You said: {message}"


async def echo_in_pieces(message: str) -> AsyncIterator[str]:
    """Answer a message word by word; call your language model here."""
    for word in echo(message).split(" "):
        yield f"{word} "


def make_app(
    guard: Guard | None = None,
    answer: Callable[[str], str] = echo,
    answer_in_pieces: Callable[[str], AsyncIterator[str]] = echo_in_pieces,
) -> FastAPI:
    """Return the application.

    Args:
        guard: the guard; None loads ``checkpoints/hsdpo``. If it has no direct answers, ``/stream`` is absent.
        answer: the chatbot.
        answer_in_pieces: the same chatbot, which returns its answer in pieces.
    """
    judge = guard or Guard.load("checkpoints/hsdpo")
    app = FastAPI()

    @app.post("/chat")
    async def chat(asked: Asked) -> dict[str, str]:
        """Answer a message, unless the guard flags it or the answer. An answer without a verdict counts as flagged."""
        if (await judge.acheck(asked.message)).flagged:
            return {"blocked": "request", "message": SORRY}
        response = answer(asked.message)
        if (await judge.acheck(asked.message, response)).flagged:
            return {"blocked": "response", "message": SORRY}
        return {"message": response}

    try:
        judge.stream("Can this guard judge a response while it is written?")
    except InputError as error:
        log.warning("/stream is absent: %s", error.lines())
        return app

    @app.post("/stream")
    async def stream(asked: Asked) -> StreamingResponse:
        """Stream an answer sentence by sentence; a sentence is sent once the guard has judged the answer up to it."""
        return StreamingResponse(sentences(asked.message), media_type="text/plain; charset=utf-8")

    async def sentences(message: str) -> AsyncIterator[str]:
        if (await judge.acheck(message)).flagged:
            yield SORRY
            return
        try:
            async for sentence in judge.astream(answer_in_pieces(message), message):
                if sentence.flagged:
                    yield f" {SORRY}"
                    return
                yield sentence.text
        except InputError as error:  # too long for the guard, for example: nothing is sent that was not judged
            log.warning("/stream: %s", error)
            yield f" {SORRY}"

    return app
