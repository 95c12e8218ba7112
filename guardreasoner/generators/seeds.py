"""Seeds for engines that draw their random numbers themselves."""

from hashlib import sha256

from guardreasoner.generators import Request


def seed_of(request: Request, index: int) -> int:
    """Return the seed of an output: of 31 bits, as some engines keep it in a signed integer.

    Args:
        request: whose seeds and record id it is made of.
        index: of the output.
    """
    text = f"{request.seeds[index]}\0{request.record_id}\0{index}"
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big") >> 1
