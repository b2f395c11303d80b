"""How tokens and counts are written, in figures and in HTML alike: signs for what has no ink, and words that agree."""

# What the first 32 characters and the delete are called, in the ASCII standard's abbreviations, and what else a text
# may hold and nobody sees: spaces without width, joiners, marks of direction.
_C0 = [
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI",
    "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
]  # fmt: skip
NAMES = {chr(code): name for code, name in enumerate(_C0)} | {
    "\x7f": "DEL",
    "\x85": "NEL",
    "\xa0": "NBSP",
    "\xad": "SHY",
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\ufeff": "BOM",
}
SIGNS = {"▁": "␣", " ": "␣", "\n": "↵", "<0x0A>": "↵", "\t": "⇥", "<0x09>": "⇥"}
JOINERS = "\u200c\u200d"  # which emoji and Persian are written with


def counted(count: int, noun: str) -> str:
    """1, "token" -> "1 token"; 4096, "query" -> "4,096 queries"."""
    return f"{count:,} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Of a noun in front of its " of …", if it has one: "row of activations" -> "rows of activations"."""
    head, of, rest = noun.partition(" of ")
    return (f"{head[:-1]}ies" if head.endswith("y") and head[-2:-1] not in "aeiou" else f"{head}s") + of + rest


def character_name(character: str) -> str:
    """What a character without ink is called: "BEL", or "U+202E" where it has no short name."""
    return NAMES.get(character, f"U+{ord(character):04X}")


def readable(token: str) -> str:
    """A token as a figure can write it: a sign for a line break or tab, and what cannot be seen by its name, "⟨BEL⟩".

    All else stays as it is, "▁" and spaces too, unless there is nothing but spaces.
    """
    if token and not token.strip(" "):
        return "␣" * len(token)
    alone = not token.strip(JOINERS)
    return "".join(
        SIGNS[character]
        if character in "\n\t"
        else character
        if character.isprintable() or (character in JOINERS and not alone)
        else f"⟨{character_name(character)}⟩"
        for character in token
    )


def visible(piece: str, most: int | None = None) -> str:
    """A piece of the vocabulary with signs for its spaces, line breaks and tabs, cut to at most so many characters.

    What cannot be seen is written by its name, as in `readable`.
    """
    for hidden, sign in SIGNS.items():
        piece = piece.replace(hidden, sign)
    piece = readable(piece)
    return piece if most is None or len(piece) <= most else f"{piece[: most - 1]}…"


def stream_names(count: int) -> list[str]:
    """The states of a residual stream: the embedding, then every layer."""
    return ["embedding", *(f"layer {layer}" for layer in range(count - 1))]
