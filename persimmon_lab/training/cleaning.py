"""Chats made fit to learn from: tidy sentences, and no profanity, addresses or talk about the chat service."""

import re
from itertools import groupby
from operator import itemgetter

_PROFANITY = re.compile(
    r"\b(\w*fuck\w*|\w*shit\w*|bitch\w*|cunts?|dick(s|head)?|cocks?|puss(y|ies)|ass(es|hole\w*)?|bastards?|damn\w*|crap\w*"
    r"|sex\w*|porn\w*|nud(e|es|ity)|naked|boob\w*|tits?|penis\w*|vagina\w*|whor\w*|slut\w*|nigg\w*|fag(s|got\w*)?|retard\w*"
    r"|rap(e|ed|ist\w*)|suicid\w*|kill (my|your)self|nazi\w*|hitler\w*|hell|wtf|stfu|af|horny|orgasm\w*|masturbat\w*"
    r"|gay\w*|lesbian\w*|drugs?|weed|cocaine|murder\w*|piss\w*|butt\w*|poop\w*|turd\w*)\b",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"https?:|www\.|\.(com|net|org|edu|gov|io|co|me|ly)\b|\w@\w|(^|\s)@\w|#\w|\d{3}[\s.)-]*\d{3}[\s.-]*\d{4}|\d{6,}"
    r"|\b(snap ?chat|snap|insta(gram)?|facebook|twitter|tinder|whats ?app|discord|venmo|tumblr|e-?mail|phone number)\b",
    re.IGNORECASE,
)
# The chats come from a contest whose players talk about their points.
_SERVICE = re.compile(
    r"\b(chit ?chat\w*|leader ?boards?|rank(s|ed|ing|ings)?|points?|million|topics?|prompts?"
    r"|this (app|site|website|chat)|bots?|gift ?cards?|contests?|survey|anonymous\w*|ratings?|random stranger)\b",
    re.IGNORECASE,
)
_CONTRACTIONS = {
    "i": "I", "im": "I'm", "i'm": "I'm", "ive": "I've", "i've": "I've", "i'll": "I'll", "i'd": "I'd", "dont": "don't",
    "cant": "can't", "didnt": "didn't", "doesnt": "doesn't", "isnt": "isn't", "wasnt": "wasn't", "arent": "aren't",
    "havent": "haven't", "hasnt": "hasn't", "couldnt": "couldn't", "wouldnt": "wouldn't", "shouldnt": "shouldn't",
    "thats": "that's", "whats": "what's", "hows": "how's", "theres": "there's", "youre": "you're", "youve": "you've",
    "theyre": "they're", "wont": "won't", "u": "you", "ur": "your", "r": "are", "ya": "you", "yea": "yeah", "k": "okay",
    "ok": "okay", "pls": "please", "plz": "please", "thx": "thanks", "bc": "because", "cuz": "because", "tho": "though",
    "gonna": "going to", "wanna": "want to", "idk": "I don't know", "ppl": "people", "rn": "right now", "haha": "haha",
}  # fmt: skip
_QUESTION = re.compile(
    r"(so |and |but |oh |well |then )*(what|how|why|who|whose|where|when|which|do|does|did|are|is|was|were|can|could"
    r"|would|will|have|has|should|am|any|don't|didn't|isn't|aren't)('s|'re)?\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")
_UNWANTED_SIGNS = re.compile(r"[^A-Za-z0-9 .,;:!?'\"()$%&/+-]")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "—": "-", "–": "-", "´": "'", "`": "'"})


def is_clean(text: str) -> bool:
    """Whether a message is free of profanity, of addresses (web, mail, phone, handles) and of the service's talk."""
    return not (_PROFANITY.search(text) or _ADDRESS.search(text) or _SERVICE.search(text))


def tidy(message: str) -> str:
    """One message as a written sentence: apostrophes, capitals and the last stop restored, emoji and smileys dropped.

    >>> tidy("im doing good :)")
    "I'm doing good."
    >>> tidy("how are u")
    'How are you?'
    """
    text = message.translate(_QUOTES)
    text = re.sub(r"[:;=]['-]?[()DPpO3/|]+(?=\s|$)|<3|\^_*\^|xD\b", " ", text)
    text = _UNWANTED_SIGNS.sub(" ", text)
    text = re.sub(r"\b(?:a?ha){2,}h?\b|\b(?:he){2,}h?\b", "haha", text, flags=re.IGNORECASE)
    text = re.sub(r"([A-Za-z])\1{2,}", r"\1\1", text)
    text = re.sub(r"\.{2,}", "...", re.sub(r"([!?,])[!?,]+", r"\1", text))
    text = _WORD.sub(lambda word: _CONTRACTIONS.get(word[0].lower(), word[0]), text)
    if text.isupper() and len(text) > 4:
        text = text.lower()
    text = re.sub(r"\s+", " ", re.sub(r"\s+([.,!?;:])", r"\1", text)).strip(" -/+&;:,")
    if not text:
        return ""
    text = re.sub(r"(^|(?<!\.)[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    if text[-1] in '.!?"':
        return text
    return text + ("?" if _QUESTION.match(re.split(r"[.!?,] ", text)[-1]) else ".")


def is_sensible(turn: str) -> bool:
    """Whether a turn is short, mostly letters, and says something else than one word over and over."""
    words = [word.lower() for word in _WORD.findall(turn)]
    letters = sum(character.isalpha() or character == " " for character in turn)
    return bool(words) and len(turn) <= 400 and letters >= 0.8 * len(turn) and len(set(words)) >= 0.5 * len(words)


def clean_segments(conversation: list[tuple[str, str]], shortest: int = 2) -> list[list[str]]:
    """The stretches of a two-person conversation in which every turn is fit to learn from.

    `conversation` holds (sender, raw message) pairs; a turn is all that one sender says before the other answers. An
    unfit turn ends a stretch and is itself left out, so that the turns on both sides of a gap never look like question
    and answer. Stretches of fewer than `shortest` turns, and stretches that mostly repeat themselves, are dropped.
    """
    if len({sender for sender, _ in conversation}) != 2:
        return []
    segments: list[list[str]] = [[]]
    for _, messages in groupby(conversation, key=itemgetter(0)):
        raw = [message for _, message in messages]
        turn = " ".join(filter(None, map(tidy, raw)))
        if all(map(is_clean, raw)) and is_clean(turn) and is_sensible(turn):
            segments[-1].append(turn)
        else:
            segments.append([])
    return [s for s in segments if len(s) >= shortest and len(set(s)) > 0.7 * len(s)]
