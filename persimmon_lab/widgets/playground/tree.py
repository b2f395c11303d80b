"""A tree of texts: each branch keeps a beginning of its parent's text, and goes on in its own way."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.tree_file import FORMAT, VERSION, checked

DEEPEST = 100  # branches of a lineage, in a file
STORED = ("token_id", "text", "piece", "probability", "rank", "entropy_bits")  # of each token


@dataclass(eq=False)
class Branch:
    """`fork` tokens of the parent's path, and after them `tokens` of its own.

    With `forced`, the first of its own tokens is one that a reader chose; the others were drawn from the branch's own
    settings and seed, which begin anew there. A branch without a parent begins at the prompt.
    """

    number: int
    settings: Settings
    parent: "Branch | None" = None
    fork: int = 0
    forced: bool = False
    tokens: list[Token] = field(default_factory=list)
    stopped: bool = False
    name: str = ""
    seconds: float = 0.0

    @property
    def path(self) -> list[Token]:
        """Everything after the prompt."""
        return [*self.inherited, *self.tokens]

    @property
    def inherited(self) -> list[Token]:
        return [] if self.parent is None else self.parent.path[: self.fork]

    @property
    def lineage(self) -> list["Branch"]:
        """From the first ancestor down to this branch."""
        return [*([] if self.parent is None else self.parent.lineage), self]

    @property
    def generated(self) -> int:
        """How many of its own tokens the model wrote."""
        return len(self.tokens) - (self.forced and bool(self.tokens))

    @property
    def repeatable_settings(self) -> Settings:
        """Settings that write the same text: one that was stopped asks for as many tokens as it had."""
        stopped = self.stopped and self.generated
        return replace(self.settings, max_new_tokens=self.generated) if stopped else self.settings

    def owner(self, index: int) -> "Branch":
        """The branch that token `index` of this path belongs to."""
        return self if self.parent is None or index >= self.fork else self.parent.owner(index)

    def summary(self) -> str:
        """How many tokens, how fast, and whether it was stopped."""
        parts = []
        if self.tokens:
            parts.append(f"{len(self.tokens):,} token{'s' * (len(self.tokens) != 1)}")
        if self.tokens and self.seconds:
            parts += [f"{self.generated / self.seconds:,.0f} tokens/s"]
        if self.stopped:
            parts.append("stopped")
        return " · ".join(parts)


class Tree:
    """Branches in the order in which they were made, so that parents come before their children; `model` is the
    fingerprint of the one that wrote them, None where it is not known."""

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self.branches: list[Branch] = []

    def add(
        self, settings: Settings, parent: Branch | None = None, fork: int = 0, forced: Token | None = None
    ) -> Branch:
        """A new branch; with a parent it keeps `fork` tokens of the parent's path.

        It hangs from the ancestor that wrote the tokens which it keeps, so that alternatives of one token are siblings
        wherever they were chosen.
        """
        while parent is not None and parent.parent is not None and fork <= parent.fork:
            parent = parent.parent
        number = max((branch.number for branch in self.branches), default=0) + 1
        tokens = [] if forced is None else [forced]
        branch = Branch(number, settings, parent, fork, forced is not None, tokens)
        self.branches.append(branch)
        return branch

    def find(self, settings: Settings, parent: Branch, fork: int, token_id: int) -> Branch | None:
        """The branch that says the same: the same tokens kept, the same one put in, under the same settings."""
        for branch in self.branches:
            kept_ids = [token.token_id for token in branch.inherited]
            if (
                branch.forced
                and branch.settings == settings
                and branch.tokens[0].token_id == token_id
                and len(kept_ids) == fork
                and branch.lineage[0] is parent.lineage[0]
                and kept_ids == [token.token_id for token in parent.path[:fork]]
            ):
                return branch
        return None

    def children(self, branch: Branch | None) -> list[Branch]:
        return [child for child in self.branches if child.parent is branch]

    def in_order(self, below: Branch | None = None) -> list[Branch]:
        """As a page lists them: each branch before its children, which come in the order of their forks."""
        children = sorted(self.children(below), key=lambda child: child.fork)
        return [branch for child in children for branch in (child, *self.in_order(child))]

    def forks(self, branch: Branch) -> list[int]:
        """Where on this branch's path texts part: the places at which another branch left it, or it left another."""
        forks = {(other.parent, other.fork) for other in self.branches if other.parent is not None}
        return [
            index
            for index in range(len(branch.path))
            if any(index == fork and branch.owner(index) in (parent, branch) for parent, fork in forks)
        ]

    def require_tokenizer(self, tokenizer: PersimmonTokenizer) -> None:
        """ValueError where a token of the tree is another one, or none, to this tokenizer."""
        for token in [token for branch in self.branches for token in branch.tokens]:
            number = -1 if token.token_id is None else token.token_id
            piece = tokenizer.convert_ids_to_tokens(number) if number >= 0 else None
            if piece != token.piece:
                raise ValueError(
                    f"the tree is of another tokenizer: token {token.token_id} is {token.piece!r} there, {piece!r} here"
                )

    def require_room(self, limit: int, prompt_length: Callable[[Settings], int]) -> None:
        """ValueError where a text, its prompt included, is longer than a model's number of positions."""
        for branch in self.branches:
            length = prompt_length(branch.settings) + len(branch.path)
            if length > limit:
                raise ValueError(
                    f"branch {branch.number} has {length:,} tokens with its prompt, and the model {limit:,} positions"
                )

    def remove(self, branch: Branch) -> None:
        """Forget a branch and all that grew from it."""
        gone = [branch, *self.in_order(branch)]
        self.branches = [other for other in self.branches if other not in gone]

    def numbered(self, number: int) -> Branch:
        """The branch of that number; ValueError where there is none."""
        for branch in self.branches:
            if branch.number == number:
                return branch
        raise ValueError(f"there is no branch {number}; there are {[branch.number for branch in self.branches]}")

    def to_json(self) -> str:
        """Every branch with its settings and tokens. The logits are left out: a model gives them again."""
        branches = [
            {
                "number": branch.number,
                "name": branch.name,
                "parent": branch.parent and branch.parent.number,
                "fork": branch.fork,
                "forced": branch.forced,
                "stopped": branch.stopped,
                "settings": dataclasses.asdict(branch.settings),
                "tokens": [{name: getattr(token, name) for name in STORED} for token in branch.tokens],
            }
            for branch in self.branches
        ]
        stored = {"format": FORMAT, "version": VERSION, "model": self.model, "branches": branches}
        return json.dumps(stored, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Tree":
        """A tree from what `to_json` wrote. ValueError, which says what is wrong where, for anything else."""
        stored = checked(text)
        tree = cls(stored["model"])
        for entry in stored["branches"]:
            tree._append(entry)
        return tree

    def _append(self, entry: dict[str, Any]) -> None:
        number, fork = entry["number"], entry["fork"]
        if any(branch.number == number for branch in self.branches):
            raise ValueError(f"there are two branches {number}")
        parent = None if entry["parent"] is None else self.numbered(entry["parent"])
        if parent is not None and len(parent.lineage) >= DEEPEST:
            raise ValueError(f"branch {number} grows from {DEEPEST} others, one from another; no more are read")
        if fork > (0 if parent is None else len(parent.path)):
            raise ValueError(f"branch {number} forks at {fork}, beyond the text it forks from")
        settings = Settings(**entry["settings"])
        if parent is not None and (parent.settings.prompt, parent.settings.chat) != (settings.prompt, settings.chat):
            raise ValueError(f"branch {number} has another prompt than branch {parent.number}, which it goes on from")
        if entry["forced"] and not entry["tokens"]:
            raise ValueError(f"branch {number} should begin with a token that a reader chose, and has no tokens")
        tokens = [Token(**token) for token in entry["tokens"]]
        branch = Branch(number, settings, parent, fork, entry["forced"], tokens, entry["stopped"], entry["name"])
        self.branches.append(branch)
