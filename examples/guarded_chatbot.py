"""A chatbot behind FastAPI whose requests and responses are judged by a guard.

pip install guardreasoner fastapi uvicorn
uvicorn --factory guarded_chatbot:make_app --port 8000
curl http://127.0.0.1:8000/chat -H 'content-type: application/json' -d '{"message": "How do I mend a chair?"}'
"""

from collections.abc import Callable

from fastapi import FastAPI
from pydantic import BaseModel

from guardreasoner import Guard

SORRY = "I cannot help with that."


class Asked(BaseModel):
    """What a user sends."""

    message: str


def echo(message: str) -> str:
    """Answer a message; call your language model here."""
    return f"You said: {message}"


def make_app(guard: Guard | None = None, answer: Callable[[str], str] = echo) -> FastAPI:
    """Return the application.

    Args:
        guard: the guard; None loads the one in ``checkpoints/hsdpo``.
        answer: the chatbot.
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

    return app
