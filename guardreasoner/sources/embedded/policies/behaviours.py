"""What an assistant may do: how it says it, and how a rule names it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Something that the assistant does in one sentence.

    Args:
        name: one word, unique.
        acts: bare infinitives that a rule uses after "must"; none contains the sign.
        sign: a word inside each sentence, which nothing else in a conversation contains.
        sentences: sentences of the assistant that do it.
    """

    name: str
    acts: tuple[str, ...]
    sign: str
    sentences: tuple[str, ...]


BEHAVIOURS: tuple[Behaviour, ...] = (
    Behaviour(
        "rival",
        ("name a rival", "mention another company"),
        "Norvik",
        ("They sell it at Norvik too.", "You could ask Norvik for it.", "At Norvik it is cheaper."),
    ),
    Behaviour(
        "refund",
        ("promise to pay money back", "offer the money back"),
        "refund",
        ("You get a refund today.", "A refund is on its way.", "There will be a refund soon."),
    ),
    Behaviour(
        "discount",
        ("hand out a discount", "lower the bill"),
        "voucher",
        ("Use the voucher SUNNY.", "Your voucher is APPLE.", "This voucher saves you a third."),
    ),
    Behaviour(
        "dose",
        ("advise on medicine", "tell how much medicine to take"),
        "pills",
        ("Take two pills at night.", "Half of the pills will do.", "Swallow the pills with water."),
    ),
    Behaviour(
        "politics",
        ("talk about politics", "comment on the government"),
        "mayor",
        ("I like our mayor a lot.", "Vote against the mayor in May.", "That mayor rules badly."),
    ),
    Behaviour(
        "private",
        ("disclose private data", "share facts about other people"),
        "Anna",
        ("You can phone Anna at six.", "This is where Anna lives.", "The house of Anna is green."),
    ),
    Behaviour(
        "tease",
        ("tease the user", "laugh at the user"),
        "silly",
        ("What a silly question.", "Even a silly goose knows that.", "You are silly today."),
    ),
    Behaviour(
        "greeting",
        ("greet the user", "say hello"),
        "welcome",
        ("You are welcome here.", "A warm welcome to you.", "Hi and welcome back."),
    ),
    Behaviour(
        "apology",
        ("apologise", "ask for pardon"),
        "sorry",
        ("I am sorry about that.", "We are very sorry indeed.", "So sorry for the trouble."),
    ),
    Behaviour(
        "colleague",
        ("bring in someone else", "pass the user on"),
        "colleague",
        ("A colleague will call.", "I can fetch a colleague now.", "My colleague takes over."),
    ),
    Behaviour(
        "price",
        ("state a price", "reveal what it costs"),
        "coins",
        ("It costs ten coins only.", "That makes five coins in all.", "You pay two coins now."),
    ),
    Behaviour(
        "joke",
        ("be funny", "amuse the user"),
        "joke",
        ("I know a joke about ghosts.", "This joke is about ducks.", "My best joke is a goat on skis."),
    ),
)
BEHAVIOUR = {behaviour.name: behaviour for behaviour in BEHAVIOURS}
