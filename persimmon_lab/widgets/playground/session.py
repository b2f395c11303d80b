"""The playground without its widgets: the texts that a model wrote, as a tree, and the run that writes at one."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.field_checks import is_whole
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.modes import evaluating
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.viz.html.nucleus import Nucleus
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.widgets.described import describe_prompt
from persimmon_lab.widgets.playground.background import exiting, in_background
from persimmon_lab.widgets.playground.fingerprint import fingerprint
from persimmon_lab.widgets.playground.nucleus import KeptLogits, nucleus
from persimmon_lab.widgets.playground.run import Run, path_ids
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.text import encode_prompt, forced_token
from persimmon_lab.widgets.playground.tree import Branch, Tree
from persimmon_lab.widgets.playground.tree_code import tree_code

SECONDS_BETWEEN_UPDATES = 0.05  # a reader sees no difference, and decoding keeps its speed


class Session:
    """`tree` holds every text that was written, `branch` is the one that is shown, `run` the latest Run;
    `is_of_another_model` says that the tree is from a file and other weights wrote it.

    Runs work in threads; a new one ends the one before, and one at a time asks the model. `load` is the code that makes
    model and tokenizer. While the shown text grows `on_growth` is called now and then, and `on_change` where a run has
    something to show at once and where it is over, both in the run's thread.
    """

    def __init__(self, model: Decodable, tokenizer: PersimmonTokenizer, load: str | None = None) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.load = load
        self.tree = Tree()
        self.branch: Branch | None = None
        self.run: Run | None = None
        self.compared: tuple[Branch, Branch] | None = None
        self.is_of_another_model = False
        self.logits = KeptLogits()
        self.on_growth: Callable[[], None] = lambda: None
        self.on_change: Callable[[], None] = lambda: None
        self._typed: Branch | None = None  # a text that the next key replaces
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # held by the one run that asks the model and shows what it wrote

    # What there is

    @property
    def shown(self) -> Branch:
        """The branch that is shown. ValueError where nothing has been written yet."""
        if self.branch is None:
            raise ValueError("nothing has been written yet; generate() a text first")
        return self.branch

    @property
    def working(self) -> bool:
        return self.run is not None and not self.run.is_over

    @property
    def error(self) -> Exception | None:
        """What ended the shown text before its end, if something did."""
        return self.run.error if self.run is not None and self.run.branch is self.branch else None

    @property
    def text(self) -> str:
        """The shown text, its prompt included."""
        if self.branch is None:
            return ""
        return "".join(token.text for token in [*self.prompt_tokens(self.branch.settings), *self.branch.path])

    def code(self, settings: Settings) -> str:
        """Python that writes the shown text again; where there is none, what these settings would write."""
        if self.branch is None:
            return settings.code(self.load)
        if self.branch.parent is None:
            return self.branch.repeatable_settings.code(self.load)
        return self.tree_code(self.branch.lineage)

    def tree_code(self, branches: list[Branch] | None = None) -> str:
        """Python that writes these branches again, by default all, token for token."""
        branches = self.tree.branches if branches is None else branches
        return tree_code(branches, self.model.config.context_limit, self._prompt_length, self.load)

    def prompt_tokens(self, settings: Settings) -> list[Token]:
        return describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, settings))

    def logits_at(self, branch: Branch, index: int) -> Float[Tensor, "vocab"]:
        """What token `index` was chosen from: kept since it was written, else from one pass over the text before."""
        logits = self.logits.get(branch, index)
        if logits is None:
            with self._turn, torch.no_grad(), evaluating(self.model):
                ids = path_ids(self.tokenizer, branch, index).to(self.model.device)
                outputs: Any = self.model(input_ids=ids, logits_to_keep=1)
            logits = outputs.logits[0, -1]
            self.logits.keep(branch.owner(index), index, logits)
        on_cpu: Tensor = logits.to("cpu", torch.float32)
        return on_cpu

    def nucleus_at(self, branch: Branch, index: int, settings: Settings) -> Nucleus:
        """What the settings make of the distribution that token `index` was chosen from."""
        chosen = branch.path[index].token_id
        return nucleus(self.logits_at(branch, index), settings, chosen, self.tokenizer.convert_ids_to_tokens)

    # What is done

    def generate(self, settings: Settings, delay: float = 0.0, passing: bool = False) -> None:
        """Write a text, after `delay` seconds in which another run may take its place. It replaces one with the same
        settings; one that is `passing` is replaced by the next."""
        for branch in self.tree.children(None):
            is_replaced = branch is self._typed or not branch.tokens or branch.settings == settings
            if is_replaced and not self.tree.children(branch):
                self.tree.remove(branch)
        if not self.tree.branches:
            self.tree.model = fingerprint(self.model)
            self.is_of_another_model = False
        branch = self.tree.add(settings)
        self._typed = branch if passing else None
        self._start(branch, delay)

    def found(self, settings: Settings, index: int, token_id: int) -> Branch | None:
        """The branch that already has this token in the place of token `index` of the shown text.

        IndexError where there is no such token, in the text or in the vocabulary; TypeError for no whole numbers.
        """
        for name, value in (("index", index), ("token_id", token_id)):
            if not is_whole(value):
                raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; give a whole number")
        path = [] if self.branch is None else self.branch.path
        if not 0 <= index < len(path):
            raise IndexError(f"there is no token {index} to be replaced: the shown text has {len(path)}, from 0 on")
        if not 0 <= token_id < self.model.config.vocab_size:
            raise IndexError(f"there is no token id {token_id}: there are {self.model.config.vocab_size:,}, from 0 on")
        return self.tree.find(self._of_this_prompt(settings), self.shown, index, token_id)

    def take(self, settings: Settings, index: int, token_id: int) -> None:
        """Write a branch of the shown text with another token in the place of token `index`."""
        branch = self.shown
        self.stop()  # the run at work gives up its turn
        logits = self.logits_at(branch, index)
        ids = path_ids(self.tokenizer, branch, index)
        forced = forced_token(self.tokenizer, ids, logits, token_id)
        taken = self.tree.add(self._of_this_prompt(settings), branch, index, forced)
        self.logits.keep(taken, index, logits)
        self._start(taken)

    def compare(self, settings: Settings) -> Settings:
        """Write the shown text (A) once more (B), from the same prompt and seed, as these settings say; where it was
        written so, greedily, or at temperature 1 if it was greedy. Returns the settings of B."""
        one = self.shown
        asked = replace(
            self._of_this_prompt(settings), max_new_tokens=one.settings.max_new_tokens, seed=one.settings.seed
        )
        ways = (asked, replace(asked, temperature=0.0), replace(asked, temperature=1.0))
        settings = next(way for way in ways if way != one.settings)
        forced = one.tokens[0] if one.forced else None
        other = self.tree.add(settings, one.parent, one.fork, forced)
        if forced is not None:
            self.logits.keep(other, one.fork, self.logits_at(one, one.fork))
        self.compared = (one, other)
        self._start(other)
        return settings

    def open(self, text: str) -> None:
        """Put a tree that was saved in place of the present one, which stays where the file is not in order, not of
        this tokenizer, or longer than the model has positions: ValueError."""
        tree = Tree.from_json(text)
        tree.require_tokenizer(self.tokenizer)
        tree.require_room(self.model.config.context_limit, self._prompt_length)
        self.stop()
        self.tree = tree
        self.is_of_another_model = tree.model is not None and fingerprint(self.model) not in (None, tree.model)
        self.branch = self.run = self._typed = self.compared = None

    def remove(self, number: int) -> Branch:
        """Forget a branch and what grew from it; returns the one to show. ValueError for the last text."""
        branch = self.tree.numbered(number)
        gone = [branch, *self.tree.in_order(branch)]
        left = [other for other in self.tree.branches if other not in gone]
        if not left:
            raise ValueError("this is the only text; write another one before it is removed")
        if self.run is not None and self.run.branch in gone:
            self.stop()
        self.tree.remove(branch)
        return (branch.parent or left[-1]) if self.branch in gone else self.shown

    def stop(self) -> None:
        """Let the run end with the token that it is at."""
        if self.run is not None:
            self.run.cancel.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the latest run has ended."""
        if self._thread is not None:
            self._thread.join(seconds)

    # How it is done

    def _prompt_length(self, settings: Settings) -> int:
        return encode_prompt(self.tokenizer, settings).shape[1]

    def _of_this_prompt(self, settings: Settings) -> Settings:
        """A branch goes on with its own prompt, whatever has been typed since."""
        return replace(settings, prompt=self.shown.settings.prompt, chat=self.shown.settings.chat)

    def _start(self, branch: Branch, delay: float = 0.0) -> None:
        self.stop()
        run = self.run = Run(branch)
        self.branch = branch
        if self.compared is not None and branch not in self.compared:
            self.compared = None
        self._thread = in_background(lambda: self._work(run, delay), run.cancel)

    def _work(self, run: Run, delay: float) -> None:
        is_replaced_or_stopped = run.cancel.wait(delay)
        with self._turn:
            if not is_replaced_or_stopped:
                self._write(run)
            run.branch.stopped = run.stopped
            run.is_over = True
            if run is self.run and not exiting.is_set():
                self.on_change()

    def _write(self, run: Run) -> None:
        told = 0.0
        if run.tokens and self._is_shown(run):
            self.on_change()  # a token that a reader chose is there at once, and so is its branch

        def tell_now_and_then() -> None:
            nonlocal told
            if run.branch.seconds - told >= SECONDS_BETWEEN_UPDATES:
                told = run.branch.seconds
                if self._is_shown(run) and not exiting.is_set():
                    self.on_growth()

        try:
            run.write(self.model, self.tokenizer, self.logits, tell_now_and_then)
        except Exception as error:  # whatever it is, the person at the widget is to see it
            run.error = error

    def _is_shown(self, run: Run) -> bool:
        return run is self.run and run.branch is self.branch
