"""Marks for notebook 12, Where does it look?: a rule that names a head; `nb12_heads` has the detectors."""

from collections.abc import Callable, Mapping
from functools import cache

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from persimmon_lab.checks.marking import Verdict, Wrong, attempt, verdict
from persimmon_lab.mini import load_mini
from persimmon_lab.trace.heads import Head, detect, patterns_of
from persimmon_lab.training.evaluate import repeated_rows

# Open: name_a_head

TEXTS = {
    "the chat": (
        "human: Do you have a dog?\n\nadept: I do not have a dog, but I have a cat.\n\n"
        "human: What is your cat called?\n\nadept: Her name is Luna. She likes to sleep all day. Do you have a cat?\n\n"
        "human: No, I have two dogs. They like to play in the park."
    ),
    "the verse": (
        "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough winds do shake the "
        "darling buds of May,\nAnd summer's lease hath all too short a date:\n"
    ),
    "the code": (
        'def area(width, height):\n    """The area of a rectangle."""\n    if width < 0 or height < 0:\n'
        '        raise ValueError("a length is negative")\n    return width * height\n'
    ),
}
MOST_KEYS = 0.3  # of those that a query sees; a rule that marks everything says nothing
MOST_ATTENTION = 0.5  # a rule that names a head accounts for half of what it does
FEWEST_QUERIES = 1 / 3

Rule = Callable[[Int[Tensor, "position"]], Bool[Tensor, "query key"]]


@cache
def named_heads() -> Mapping[Head, str]:
    """The heads that have a name already: what the detectors find in the shipped model, on the rows of the notebook."""
    model, tokenizer = load_mini()
    first_piece = tokenizer.convert_tokens_to_ids("<0xFF>") + 1
    found = detect(model, repeated_rows(model.config.vocab_size, first_piece, period=40, rows=4, seed=0))
    return {head: kind for kind in ("induction", "previous token") for head in found[kind].standing_out()}


def name_a_head(rule: Rule) -> Verdict:
    """Any rule will do that says of some head of persimmon-mini, in three kinds of text, where half of its attention
    goes, while it marks at most three keys in ten, and that is not about a head with a name already."""
    return verdict(_check_rule, rule, str)


def _check_rule(rule: Rule) -> str:
    model, tokenizer = load_mini()
    shares = {}
    for name, text in TEXTS.items():
        ids = tokenizer(text, return_tensors="pt").input_ids
        keys = _marked(rule, ids[0], name)
        patterns = rearrange(patterns_of(model, ids), "layer 1 head query key -> layer head query key")
        queries = keys.any(dim=-1)
        shares[name] = (patterns * keys).sum(dim=-1)[..., queries].mean(dim=-1)
    worst = torch.stack(list(shares.values())).amin(dim=0)
    head = divmod(int(worst.argmax()), worst.shape[1])
    told = ", ".join(f"{float(share[head]):.0%} in {name}" for name, share in shares.items())
    title = f"{head[0]}.{head[1]}"
    if worst[head] < MOST_ATTENTION:
        raise Wrong(f"the head that follows it best is {title}, but not with half of its attention everywhere: {told}")
    if kind := named_heads().get(head):
        raise Wrong(
            f"the head that follows this rule best, {title} ({told}), is one of the {kind} heads: it has a name"
        )
    return f"head {title} looks where your rule says, with {told} of its attention; it is yours to name"


def _marked(rule: Rule, ids: Int[Tensor, "position"], name: str) -> Bool[Tensor, "query key"]:
    length = len(ids)
    try:
        keys = attempt(rule, {"ids": ids}, torch.Size((length, length)))
    except Wrong as wrong:
        raise Wrong(f"in {name} {wrong}") from wrong
    keys = (keys != 0).tril()
    seen = torch.arange(1, length + 1)
    share = float(keys.sum() / seen.sum())
    if share > MOST_KEYS:
        raise Wrong(f"in {name} it marks {share:.0%} of the keys that a query sees; mark at most {MOST_KEYS:.0%}")
    queries = float(keys.any(dim=-1).float().mean())
    if queries < FEWEST_QUERIES:
        raise Wrong(f"in {name} it says where {queries:.0%} of the queries look; say it of a third at least")
    return keys
