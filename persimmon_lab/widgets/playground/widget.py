"""A playground for generation: write a prompt, watch the tokens come, ask each what else it could have been, and go on
from there."""

from typing import Any

from IPython.display import HTML

from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.widgets.keys import Column
from persimmon_lab.widgets.pictures import Bundle
from persimmon_lab.widgets.playground.branch_view import BranchView
from persimmon_lab.widgets.playground.controls import make_controls, read, write
from persimmon_lab.widgets.playground.layout import Parts, arranged
from persimmon_lab.widgets.playground.run import Run
from persimmon_lab.widgets.playground.screen import Screen
from persimmon_lab.widgets.playground.session import Session
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.token_view import TokenView
from persimmon_lab.widgets.playground.tree import Branch, Tree

SECONDS_AFTER_TYPING = 0.3
LONGEST_RUN = 1000  # tokens; the slider's end


class GenerationPlayground(Column):
    """Prompt and settings above, the text below, each token coloured by its probability. Click one for what else it
    could have been, and what the settings leave of that; click one of those, and the text goes on from there.

    `settings` are the fields of `Settings`: chat, temperature, top_k, top_p, min_p, max_new_tokens, seed. `load` is the
    code that makes `model` and `tokenizer`; it heads the code that is shown. Generation runs in a thread, so that the
    notebook goes on and Stop is heard, and anew at every change with `as_you_type`; a new run ends the one before.

    `tree` holds every text that was written here and `branch` the one that is shown; `take` and `select` do what a
    click does. `compare` writes the shown text again with the settings of the controls, and shows both.
    `tree.to_json()` is the whole, for `load_tree` and `from_json`; `tree_code()` is Python that writes it again.

    `run` is the latest Run, with its tokens and the error that ended it, if one did; `text` the prompt of the shown
    branch and what came after; `code` the code that writes the same. Where no kernel runs, a notebook shows `static()`
    in place of the widget if there is something to show: let the cell end in
    `GenerationPlayground(...).generate().wait()`.
    """

    def __init__(
        self,
        model: Decodable,
        tokenizer: PersimmonTokenizer,
        prompt: str = "",
        *,
        as_you_type: bool = False,
        load: str | None = None,
        **settings: Any,
    ) -> None:
        self.session = Session(model, tokenizer, load)
        self._following = True
        longest = min(LONGEST_RUN, model.config.context_limit - 1)
        self.controls = make_controls(Settings(prompt, **settings), model.config.vocab_size, longest)
        self.view = TokenView(self._opened, self._describe, self._taken, self._describe)
        self.branches = BranchView(self._asked)
        self.parts = Parts(as_you_type)
        self.as_you_type = self.parts.as_you_type
        self.generate_button = self.parts.generate
        self.stop_button = self.parts.stop
        self.compare_button = self.parts.compare
        self.status = self.parts.status
        self.meter = self.parts.meter
        self.comparison = self.parts.comparison
        self.screen = Screen(self.session, self.view, self.branches, self.parts, lambda: self.settings)
        self.generate_button.on_click(lambda _: self.generate())
        self.stop_button.on_click(lambda _: self.stop())
        self.compare_button.on_click(lambda _: self.compare())
        for control in [*self.controls.values(), self.as_you_type]:
            control.observe(self._changed, "value")
        super().__init__(arranged(self.controls, self.parts, self.view, self.branches), layout={"max_width": "76em"})
        self.screen.show_prompt()

    @classmethod
    def from_json(
        cls, model: Decodable, tokenizer: PersimmonTokenizer, tree: str, **options: Any
    ) -> "GenerationPlayground":
        """A playground with the tree that `tree.to_json()` wrote. ValueError where it is not of this tokenizer."""
        return cls(model, tokenizer, **options).load_tree(tree)

    @property
    def model(self) -> Decodable:
        return self.session.model

    @property
    def tokenizer(self) -> PersimmonTokenizer:
        return self.session.tokenizer

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return read(self.controls)

    @property
    def tree(self) -> Tree:
        return self.session.tree

    @property
    def branch(self) -> Branch | None:
        return self.session.branch

    @property
    def run(self) -> Run | None:
        return self.session.run

    @property
    def text(self) -> str:
        return self.session.text

    @property
    def code(self) -> str:
        return self.session.code(self.settings)

    def tree_code(self, branches: list[Branch] | None = None) -> str:
        """Python that writes these branches again, by default all, token for token."""
        return self.session.tree_code(branches)

    # What a reader does

    def generate(self, delay: float = 0.0) -> "GenerationPlayground":
        """Start a run with the present settings, after `delay` seconds in which another one may take its place."""
        self.session.generate(self.settings, delay, passing=self.as_you_type.value)
        self.screen.show_work()
        return self

    def take(self, index: int, token_id: int) -> "GenerationPlayground":
        """Put another token in the place of token `index` of the shown text, and let the model go on from there with
        the settings of the controls. The text that was there stays in the tree.

        IndexError where the text has no such token, or the vocabulary.
        """
        settings = self.settings
        before = self.session.found(settings, index, token_id)
        if before is not None:
            self.select(before)
        else:
            self.session.take(settings, index, token_id)
            self.screen.show_work()
        return self

    def compare(self) -> "GenerationPlayground":
        """Write the shown text once more, from the same prompt and seed, as the controls say now; where they say the
        same, greedily, or at temperature 1 if it was greedy. Both are then shown side by side."""
        if self.branch is None or not self.branch.tokens:
            self.status.value = "Generate a text first: it is A, and the controls then say how to write B"
            return self
        settings = self.session.compare(self.settings)
        self.screen.show_work()
        self._set_controls(settings)
        return self

    def select(self, branch: Branch | int) -> None:
        """Show a branch, given itself or by its number, and let the controls say its settings."""
        self.session.branch = self.tree.numbered(branch) if isinstance(branch, int) else branch
        self._set_controls(self.session.shown.settings)
        self.screen.show()

    def remove(self, number: int) -> None:
        """Forget a branch and what grew from it; the last text stays."""
        self.select(self.session.remove(number))

    def load_tree(self, text: str) -> "GenerationPlayground":
        """Show a tree that was saved in place of the present one; where another model wrote it, the status says so.
        ValueError, and the present one stays, where it is no tree, not of this tokenizer, or too long for the model."""
        self.session.open(text)
        self.select(self.tree.branches[-1])
        return self

    def stop(self) -> None:
        """Let the run end with the token that it is at."""
        self.session.stop()

    def wait(self, seconds: float | None = None) -> "GenerationPlayground":
        """Wait until the latest run has ended."""
        self.session.wait(seconds)
        return self

    def close(self) -> None:
        self.stop()
        super().close()

    # What is shown

    def static(self, inspect: int | None = None) -> HTML:
        """The shown text (made now if there is none) as a page, with the details of the token at `inspect`, and the
        branches if there are several.

        Raises what generating raised.
        """
        return self.screen.static(inspect)

    def __repr__(self) -> str:
        return f"GenerationPlayground({self.settings.prompt!r})"

    def _repr_mimebundle_(self, **options: Any) -> Bundle:
        bundle: Bundle = super()._repr_mimebundle_(**options)
        failed = self.run is not None and self.run.error is not None
        return bundle if self.branch is None or failed else {**bundle, "text/html": self.static().data}

    # What is heard

    def _set_controls(self, settings: Settings) -> None:
        """Let the controls say these settings, without a run that follows them."""
        self._following = False
        write(self.controls, settings)
        self._following = True
        self.screen.show_prompt()

    def _changed(self, _change: object) -> None:
        if not self._following:
            return
        self.screen.show_prompt()
        if self.as_you_type.value:
            self.generate(delay=SECONDS_AFTER_TYPING)
        self._describe()

    def _describe(self) -> None:
        self.screen.describe()

    def _opened(self) -> None:
        if self.as_you_type.value and self.run is None:
            self.generate()

    def _taken(self, token_id: int) -> None:
        self.take(self.view.chosen, token_id)

    def _asked(self, what: str, number: int, text: str) -> None:
        """What a reader asks of the list of branches; an error is for the reader to see."""
        try:
            if what == "json":
                self.branches.save("branches.json", self.tree.to_json())
            elif what == "python":
                self.branches.save("branches.py", self.tree_code() + "\n")
            elif what == "open":
                self.load_tree(text)
            elif what == "select":
                self.select(number)
            elif what == "rename":
                self.tree.numbered(number).name = text
                self.screen.show()
            else:
                self.remove(number)
        except Exception as error:
            self.screen.show_error(error)
