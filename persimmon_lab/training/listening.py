"""What a listener says who has only just heard it: it takes up the words and asks on.

Templates know some hundreds of things that people say. What else they say is taken from the chats: of a short sentence
about oneself, "you" is made of "I" and "my" becomes "your"; of a question, the part that asks is kept and the rest is
taken up. So a model learns to say again in its own turn what was said to it, whatever it was (after Weizenbaum 1966,
"ELIZA", which did it by rules such as these), and, where it is too long to be said again, what fits anything that
feels like it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files

import numpy as np

from persimmon_lab.training.readers import Document, dialogue
from persimmon_lab.training.templates import as_typed

SHORTEST, LONGEST = 3, 24  # words of what is heard
ECHOED = 9  # words of what is said again, at most
ECHOES = 0.55  # of what could be said again is
SENTENCES = 3  # of what is said, at most
SENTENCE_END = re.compile(r"(?<=[.!?]) +")
FILLERS = re.compile(r"(well|so|and|but|yeah|yes|no|oh|ok|okay|hi|hey|hello|lol|haha+|just|ugh|wow|also|or),? ", re.I)
TRAILERS = re.compile(r",? (lol|haha+|too|tho|though|actually|either)$", re.I)
# Where a first clause ends that says something by itself.
CLAUSE = re.compile(
    r",? (?:but|because|and (?:i|i'm|we|it|it's|my|she|he|they|the|there|now)|so that|which)\b.*|,.*", re.I
)
# Whom and what one may ask about who is told of it, and how.
NEAR = re.compile(
    r"\bmy ((?:(?:little|big|older|younger|best|new|old) )?(?:sister|brother|mother|father|mom|dad|grandma|grandpa|"
    r"grandmother|grandfather|aunt|uncle|cousin|son|daughter|wife|husband|friend|girlfriend|boyfriend|roommate|boss|"
    r"teacher|neighbor|family|parents|kids|dog|cat|puppy|kitten|rabbit|hamster|horse|goldfish|bird|job|car|bike|house|"
    r"apartment|garden|computer|phone|school|class|project|team|trip|hobby))\b",
    re.I,
)
ABOUT = ("Tell me more about your {near}.", "I'd like to hear more about your {near}.")
# What says nothing alone: it leans on what was said before, or on the other.
LEANING = re.compile(
    r"[.!?;:\n\"()]|\b(you|your|yours|you're|haha+|ahha|lol|lmao|them|those|that's)\b|"
    r"^i (guess|think|hope|agree|suppose|know|see|mean)( so| not)?$|^i (don't|didn't) (think so|know|mind|care)$|"
    # and what no rule may answer
    r"\b(live any ?more|kill|suicide|suicidal|want to die|hurt myself|end it all)\b",
    re.I,
)
TURNED: Mapping[str, str] = {
    "i": "you", "i'm": "you're", "im": "you're", "i've": "you've", "i'll": "you'll", "i'd": "you'd", "me": "you",
    "my": "your", "mine": "yours", "myself": "yourself", "am": "are", "we": "you", "we're": "you're", "we've": "you've",
    "we'll": "you'll", "us": "you", "our": "your", "ours": "yours", "you": "me", "your": "my", "yours": "mine",
    "yourself": "myself",
}  # fmt: skip
WAS = re.compile(r"\byou was(n't)?\b")

# Words of sympathy by what was said, how often one comes first, and what can be said to anything of the kind.
FEELINGS = tomllib.loads((files(__package__) / "everyday" / "feelings.toml").read_text(encoding="utf-8"))
SAD, GLAD = (frozenset(FEELINGS[name].split()) for name in ("sad", "glad"))
NEGATED = re.compile(r"\b(?:not|never|no|isn't|wasn't|aren't|don't|didn't|doesn't|can't|couldn't) (\w+)(?: (\w+))?")
LIKED = re.compile(r"i (?:really |also |do |just )?(?:like|love|enjoy|prefer)\b")  # what is liked is not sad
WANTED = re.compile(r"i (?:really |also |just )?(?:need|want|wish|hope|should|must|have to|would)\b")  # and nor glad
SYMPATHY = {
    "sad": (
        0.9,
        ("I'm sorry to hear that.", "Oh no.", "That sounds hard.", "I'm sorry.", "That's not easy."),
        ("Do you want to tell me more about it?", "How are you feeling now?", "I hope it gets better soon.",
         "How do you feel about it?", "Do you want to talk about it?"),
    ),
    "glad": (
        0.75,
        ("How nice!", "That's good to hear.", "I'm glad to hear that.", "That sounds nice.", "Lovely!"),
        ("Tell me more about it.", "How do you feel about it?", "I like to hear that.", "What is so nice about it?"),
    ),
    "": (
        0.6,
        ("I see.", "I see.", "I see.", "Oh, I see.", "Thank you for telling me."),
        ("Tell me more about it.", "How do you feel about it?", "I'd like to hear more about it.",
         "What is that like for you?"),
    ),
}  # fmt: skip

# What is said of oneself by how it begins (after it was turned), and what may be said to it.
STATEMENTS = {
    r"you (want|wanted|would like|wish|hope) to \w|you'd (like|love) to \w": (
        "So {said}? I hope it works out.",
        "{Said}? What would be the first step?",
        "So {said}. What keeps you from it?",
    ),
    r"you (have|need|had|ought) to \w|you (must|should) \w": (
        "So {said}. I hope it goes well.",
        "{Said}? I hope it goes well.",
        "{Said}? You can do it, one step after the other.",
    ),
    r"you (can't|cannot|couldn't) \w": (
        "So {said}? Why is that?",
        "{Said}? What would help you?",
        "{Said}? What makes it hard?",
    ),
    r"you (don't|didn't|haven't|won't|never) \w": (
        "So {said}? Why is that?",
        "{Said}? How is that for you?",
    ),
    r"you (really |also )?(like|love|enjoy|prefer) \w": (
        "So {said}? What do you like about it?",
        "{Said}? Tell me what is nice about it.",
    ),
    r"you('re| are) (\w+ )?(going to|about to|planning to|thinking) \w": (
        "So {said}? I hope it goes well.",
        "{Said}? Are you looking forward to it?",
    ),
    r"you('re| are) (\w+ )?\w+ing\b": ("So {said}? How is it going?", "{Said}? How do you like it?"),
    r"you('re| are) ": ("So {said}? How is that for you?", "{Said}? Tell me more about it."),
    r"you have |you've got ": ("So {said}? Tell me more.", "{Said}? How is that for you?"),
    r"you('ll| will) ": ("So {said}? I hope it goes well.", "{Said}? When will that be?"),
    r"you (hate|dislike|miss|wonder|keep) ": ("So {said}? Why is that?", "{Said}? How is that for you?"),
    r"you (think|guess|believe) ": ("So {said}? What makes you think so?", "{Said}? You may be right."),
    r"your ": ("So {said}? Tell me more about it.", "{Said}? How do you feel about that?"),
    r"you (\w+ly |just |also )?(\w+ed|went|got|had|saw|were|did|made|took|came|ate|met|bought|found|told|left)\b": (
        "So {said}? How was that?",
        "{Said}? How do you feel about it?",
        "So {said}. How was it for you?",
    ),
    r"you ": ("So {said}? Tell me more about it.", "{Said}? What is that like for you?"),
    r"it's|it was|it is|it has|(the|there|there's) .*\b(is|are|was|were|has|have|had|'s)\b": (
        "So {said}? How do you feel about that?",
        "{Said}? How is that for you?",
    ),
}
# Questions by how they begin, and answers in which {asked} is what follows and {rest} the same, turned.
MODEL = ("I'm only a small language model.", "I'm a small language model.")
QUESTIONS = {
    r"do you (?:like|love|enjoy) (?P<rest>.+)": (
        "I only know {rest} from what I have read. Do you like {asked}?",
        "I like to hear about {rest}. And you, do you like {asked}?",
    ),
    r"do you have (?P<rest>any .+|an? .+)": (
        "No, not me. Do you have {asked}?",
        "I have nothing but words, so I don't have {rest}. And you?",
    ),
    r"do you (?:ever )?(?P<rest>(?!know|think|remember|have|want)\w+ .+)": (
        "I don't {rest}. {model} And you, do you {asked}?",
        "No, I don't {rest}. Tell me about you.",
    ),
    r"have you ever (?P<rest>\w+ .+)": (
        "No, I have never {rest}. Have you?",
        "I have never {rest}. {model} What about you?",
    ),
    r"(?:can|could) you (?P<rest>(?!tell|help|give|please)\w+.*)": (
        "I'm afraid I can't {rest}. All I do is talk.",
        "No, I can't {rest}. {model}",
    ),
    r"what(?:'s| is) your favou?rite (?P<rest>.+)": (
        "I don't have a favorite {rest}. What's yours?",
        "A favorite {rest}? I have none. {model} Which is yours?",
    ),
    r"what do you think (?:of|about) (?P<rest>.+)": (
        "I know little about {rest}. What do you think?",
        "I have no strong opinion on {rest}. {model} What is yours?",
    ),
    r"should (?:i|we) (?P<rest>.+)": (
        "If you want to {rest}, I'd say yes. What speaks against it?",
        "That's for you to say. Do you want to {rest}?",
    ),
    r"how (?:do|can|should) (?:i|we|you) (?P<rest>.+)": (
        "I don't know much about how to {rest}. Is there somebody you could ask?",
        "To {rest}, I would begin small and take my time. What have you tried so far?",
    ),
    r"what should (?:i|we) (?P<rest>.+)": (
        "I can't tell you what to {rest}. What would you like best?",
        "What to {rest}? Take what you like best.",
    ),
    r"what(?:'s| is) (?:a|an|some) (?P<rest>(?:good|nice|fun|great) .+)": (
        "I don't know much about that. What would be {article} {rest} for you?",
    ),
    # What is asked about the listener, and whatever else is asked; what it knows an answer to is left to others.
    r"(?!.*\b(?:names?|capital|plus|minus|how (?:are|old|is|have)|what(?:'s| is) (?:up|new)|do you (?:know|think))\b)"
    r"(?P<rest>(?:what|where|when|who|which|why|how|are|were|did|would|have) .*\byou(?:r|rs)?\b.*)": (
        "{model} So there is not much to tell about me. And you?",
        "I have no life like yours, so I can't say. How is it with you?",
        "I'm a language model, so that is nothing for me. What about you?",
    ),
    r"(?!.*\b(?:names?|capital|plus|minus|opposite|plural|comes|day|month|letter|larger|smaller|color|sound|"
    r"you|your|yours)\b|.*\d)"
    r"(?P<rest>(?:what|where|when|who|which|why|how) \w+ .+)": (
        "I don't know. {model} What do you think?",
        "I don't know that. Do you?",
        "That's more than I know. {model}",
    ),
}


def turned(said: str) -> str:
    """The words of one speaker in the mouth of the other.

    >>> turned("I was late because my dog ate our map")
    'you were late because your dog ate your map'
    """
    words = " ".join(TURNED.get(word.lower(), word) for word in said.split(" "))
    return WAS.sub(r"you were\1", words)


def heard(said: str, generator: np.random.Generator) -> str | None:
    """What a listener says to one sentence; None where no rule fits it."""
    text = said.rstrip(".!").strip()
    if text.endswith("?"):
        return _answered(text[:-1].strip(), generator)
    while match := FILLERS.match(text):
        text = text[match.end() :]
    text = TRAILERS.sub("", text)
    if not SHORTEST <= len(text.split()) <= LONGEST or LEANING.search(text):
        return None
    clause = CLAUSE.sub("", text)
    taken = turned(clause if len(clause.split()) >= SHORTEST else text)
    taken = re.sub(r"^(The|It|It's|There|There's)\b", lambda match: match[0].lower(), taken)
    for pattern, replies in STATEMENTS.items():
        if re.match(pattern, taken):
            often, words, rest = SYMPATHY[feeling(text)]
            if len(taken.split()) <= ECHOED and generator.random() < ECHOES:
                reply = _pick(replies, generator).format(said=taken, Said=taken[0].upper() + taken[1:])
            elif near := NEAR.search(text):
                reply = _pick(ABOUT, generator).format(near=near[1].lower())
            else:
                reply = _pick(rest, generator)
            return f"{_pick(words, generator)} {reply}" if generator.random() < often else reply
    return None


def _answered(question: str, generator: np.random.Generator) -> str | None:
    """What a listener says to a question, without its mark."""
    for pattern, replies in QUESTIONS.items():
        match = re.fullmatch(pattern, question, re.IGNORECASE)
        if match and "?" not in question and len(question.split()) <= LONGEST:
            rest = turned(match["rest"])
            article = "an" if rest[0] in "aeiou" else "a"
            values = {"asked": match["rest"], "rest": rest, "article": article, "model": _pick(MODEL, generator)}
            return _pick(replies, generator).format(**values)
    return None


def feeling(said: str) -> str:
    """ "sad", "glad" or "", by the words that were said; good that is denied is sad, bad that is denied neither."""
    text = said.lower()
    denied = {word for pair in NEGATED.findall(text) for word in pair}
    words = set(re.findall(r"[\w']+", text))
    sad = 0 if LIKED.match(text) else len(words & SAD - denied) + len(denied & GLAD)
    glad = 0 if WANTED.match(text) else len(words & GLAD - denied)
    return "sad" if sad > glad else "glad" if glad > sad else ""


def listening(documents: Sequence[Document], generator: np.random.Generator) -> Iterator[Document]:
    """Exchanges of which the first half was said in the chats: a sentence that a rule fits, alone and, where it is one
    of two or three, with the rest of its turn; then what a listener says to it."""
    for document in documents:
        for turn in document.text.split("\n\n"):
            sentences = SENTENCE_END.split(turn.partition(": ")[2])
            replies = [heard(sentence, generator) for sentence in sentences]
            for sentence, reply in zip(sentences, replies, strict=True):
                if reply:
                    yield Document(document.work, dialogue([as_typed(sentence, generator), reply]))
            # To a whole turn, what is said to its last sentence: a question is rather answered than passed over.
            if 1 < len(sentences) <= SENTENCES and (last := replies[-1]):
                yield Document(document.work, dialogue([as_typed(" ".join(sentences), generator), last]))


def _pick(choices: Sequence[str], generator: np.random.Generator) -> str:
    return choices[int(generator.integers(len(choices)))]
