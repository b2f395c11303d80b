"""A playground for generation: write a prompt, watch the tokens come, ask each what else it could have been, and go on
from there."""

import threading
from dataclasses import replace
from typing import Any

import ipywidgets
import torch
from IPython.display import HTML
from torch import Tensor

from persimmon_lab.generation.prompts import context_limit
from persimmon_lab.viz.html.comparison import comparison_html
from persimmon_lab.viz.html.nucleus import nucleus_html
from persimmon_lab.viz.html.tokens import Token, page_html, tokens_html
from persimmon_lab.viz.html.tree import tree_html
from persimmon_lab.widgets.described import describe_prompt
from persimmon_lab.widgets.playground.branch_view import BranchView, tree_rows
from persimmon_lab.widgets.playground.controls import make_controls, read, write
from persimmon_lab.widgets.playground.layout import Parts, arranged
from persimmon_lab.widgets.playground.meter import meter_html
from persimmon_lab.widgets.playground.nucleus import KeptLogits, nucleus
from persimmon_lab.widgets.playground.run import Run, path_ids
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.text import encode_prompt, forced_token, shortened
from persimmon_lab.widgets.playground.token_view import TokenView
from persimmon_lab.widgets.playground.tree import Branch, Tree
from persimmon_lab.widgets.playground.tree_code import tree_code

SECONDS_BETWEEN_UPDATES = 0.05  # a reader sees no difference, and decoding keeps its speed
SECONDS_AFTER_TYPING = 0.3
LONGEST_RUN = 1000  # tokens; the slider's end


class GenerationPlayground(ipywidgets.VBox):
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
        model: Any,
        tokenizer: Any,
        prompt: str = "",
        *,
        as_you_type: bool = False,
        load: str | None = None,
        **settings: Any,
    ) -> None:
        self.model, self.tokenizer, self.load = model, tokenizer, load
        self.run: Run | None = None
        self.tree, self.branch = Tree(), None
        self._typed: Branch | None = None  # a text that the next key replaces
        self._compared: tuple[Branch, Branch] | None = None
        self._logits, self._following, self._prompt_length = KeptLogits(), True, 0
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()  # held by the one run that asks the model and writes to the view
        longest = min(LONGEST_RUN, context_limit(model.config) - 1)
        self.controls = make_controls(Settings(prompt, **settings), tokenizer.vocab_size, longest)
        self.view = TokenView(self._opened, self._describe, self._taken, self._describe)
        self.branches = BranchView(self._asked)
        parts = Parts(as_you_type)
        self.as_you_type, self.status, self.meter, self.comparison = (
            parts.as_you_type,
            parts.status,
            parts.meter,
            parts.comparison,
        )
        self.generate_button, self.stop_button, self.compare_button = parts.generate, parts.stop, parts.compare
        self.generate_button.on_click(lambda _: self.generate())
        self.stop_button.on_click(lambda _: self.stop())
        self.compare_button.on_click(lambda _: self.compare())
        for control in [*self.controls.values(), self.as_you_type]:
            control.observe(self._changed, "value")
        super().__init__(arranged(self.controls, parts, self.view, self.branches), layout={"max_width": "76em"})
        self._show_prompt()

    @classmethod
    def from_json(cls, model: Any, tokenizer: Any, tree: str, **options: Any) -> "GenerationPlayground":
        """A playground with the tree that `tree.to_json()` wrote. ValueError where it is not of this tokenizer."""
        return cls(model, tokenizer, **options).load_tree(tree)

    @property
    def settings(self) -> Settings:
        """What the controls say now."""
        return read(self.controls)

    @property
    def text(self) -> str:
        if self.branch is None:
            return ""
        return "".join(token.text for token in [*self._prompt_tokens(self.branch.settings), *self.branch.path])

    @property
    def code(self) -> str:
        if self.branch is None:
            return self.settings.code(self.load)
        if self.branch.parent is None:
            return self.branch.repeatable_settings.code(self.load)
        return self.tree_code(self.branch.lineage)

    def tree_code(self, branches: list[Branch] | None = None) -> str:
        """Python that writes these branches again, by default all, token for token."""
        branches = self.tree.branches if branches is None else branches
        limit = context_limit(self.model.config)
        return tree_code(branches, limit, lambda given: encode_prompt(self.tokenizer, given).shape[1], self.load)

    # What a reader does

    def generate(self, delay: float = 0.0) -> "GenerationPlayground":
        """Start a run with the present settings, after `delay` seconds in which another one may take its place."""
        settings = self.settings
        for branch in self.tree.children(None):
            replaced = branch is self._typed or not branch.tokens or branch.settings == settings
            if replaced and not self.tree.children(branch):
                self.tree.remove(branch)
        branch = self.tree.add(settings)
        self._typed = branch if self.as_you_type.value else None
        return self._start(branch, delay)

    def take(self, index: int, token_id: int) -> "GenerationPlayground":
        """Put another token in the place of token `index` of the shown text, and let the model go on from there with
        the settings of the controls. The text that was there stays in the tree."""
        branch, settings = self.branch, self._of_this_prompt(self.settings)
        before = self.tree.find(settings, branch, index, token_id)
        if before is not None:
            self.select(before)
            return self
        self.stop()  # the run at work gives up its turn
        logits = self._logits_at(branch, index)
        ids = path_ids(self.tokenizer, branch, index)
        forced = forced_token(self.tokenizer, ids, logits, token_id)
        taken = self.tree.add(settings, branch, index, forced)
        self._logits.keep(taken, index, logits)
        return self._start(taken)

    def compare(self) -> "GenerationPlayground":
        """Write the shown text once more, from the same prompt and seed, as the controls say now; where they say the
        same, greedily, or at temperature 1 if it was greedy. Both are then shown side by side."""
        if self.branch is None or not self.branch.tokens:
            self.status.value = "Generate a text first: it is A, and the controls then say how to write B"
            return self
        one = self.branch
        length = {"max_new_tokens": one.settings.max_new_tokens, "seed": one.settings.seed}
        now = replace(self._of_this_prompt(self.settings), **length)
        others = (now, replace(now, temperature=0.0), replace(now, temperature=1.0))
        settings = next(each for each in others if each != one.settings)
        forced = one.tokens[0] if one.forced else None
        other = self.tree.add(settings, one.parent, one.fork, forced)
        if forced is not None:
            self._logits.keep(other, one.fork, self._logits_at(one, one.fork))
        self._compared = (one, other)
        self._start(other)
        self._set_controls(settings)
        return self

    def select(self, branch: Branch | int) -> None:
        """Show a branch, given itself or by its number, and let the controls say its settings."""
        branch = self.tree.numbered(branch) if isinstance(branch, int) else branch
        self.branch = branch
        self._set_controls(branch.settings)
        self._show()

    def load_tree(self, text: str) -> "GenerationPlayground":
        """Show a tree that was saved in place of the present one. ValueError where it is not of this tokenizer."""
        tree = Tree.from_json(text)
        tree.require_tokenizer(self.tokenizer)
        self.stop()
        self.tree, self.branch, self.run, self._typed, self._compared = tree, None, None, None, None
        if tree.branches:
            self.select(tree.branches[-1])
        return self

    def stop(self) -> None:
        """Let the run end with the token that it is at."""
        if self.run is not None:
            self.run.cancel.set()

    def wait(self, seconds: float | None = None) -> "GenerationPlayground":
        """Wait until the latest run has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
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
        branch = self.branch
        if branch is None:
            branch = Tree().add(self.settings)
            Run(branch).write(self.model, self.tokenizer, self._logits)
        elif self.run is not None and self.run.branch is branch and self.run.error is not None:
            raise self.run.error
        path, prompt = branch.path, shortened(self._prompt_tokens(branch.settings))
        if inspect is None:
            inspect = min(range(len(path)), key=lambda index: path[index].probability, default=0)
        details = self._nucleus_html(branch, inspect, branch.settings) if path else ""
        rows = tree_rows(self.tree, branch) if len(self.tree.branches) > 1 else []
        return HTML(page_html(prompt, path, details, inspect) + (tree_html(rows) if rows else ""))

    def __repr__(self) -> str:
        return f"GenerationPlayground({self.settings.prompt!r})"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        bundle = super()._repr_mimebundle_(**options)
        failed = self.run is not None and self.run.error is not None
        return bundle if self.branch is None or failed else {**bundle, "text/html": self.static().data}

    def _prompt_tokens(self, settings: Settings) -> list[Token]:
        return describe_prompt(self.tokenizer, encode_prompt(self.tokenizer, settings))

    def _set_controls(self, settings: Settings) -> None:
        """Let the controls say these settings, without a run that follows them."""
        self._following = False
        write(self.controls, settings)
        self._following = True
        self._show_prompt()

    def _of_this_prompt(self, settings: Settings) -> Settings:
        """A branch goes on with its own prompt, whatever has been typed since."""
        return replace(settings, prompt=self.branch.settings.prompt, chat=self.branch.settings.chat)

    def _logits_at(self, branch: Branch, index: int) -> Tensor:
        """What token `index` was chosen from: kept since it was written, else from one pass over the text before."""
        logits = self._logits.get(branch, index)
        if logits is None:
            with self._turn, torch.no_grad():
                ids = path_ids(self.tokenizer, branch, index).to(self.model.device)
                logits = self.model(input_ids=ids, logits_to_keep=1).logits[0, -1]
            self._logits.keep(branch.owner(index), index, logits)
        return logits.to("cpu", torch.float32)

    def _nucleus_html(self, branch: Branch, index: int, settings: Settings) -> str:
        logits, chosen = self._logits_at(branch, index), branch.path[index].token_id
        return nucleus_html(nucleus(logits, settings, chosen, self.tokenizer.convert_ids_to_tokens), self.view.log)

    def _start(self, branch: Branch, delay: float = 0.0) -> "GenerationPlayground":
        before, self.run = self.run, Run(branch)
        self.branch = branch
        if before is not None:
            before.cancel.set()
        if self._compared is not None and branch not in self._compared:
            self._compared = None
        self.stop_button.disabled = False
        self._thread = threading.Thread(target=self._work, args=(self.run, delay), daemon=True)
        self._thread.start()
        return self

    def _work(self, run: Run, delay: float) -> None:
        replaced_or_stopped = run.cancel.wait(delay)
        with self._turn:
            if not replaced_or_stopped:
                self._write(run)
            run.branch.stopped = run.stopped
            if run is self.run:
                self._show()
                self.stop_button.disabled = True

    def _write(self, run: Run) -> None:
        published = 0.0
        if run.tokens and run is self.run and run.branch is self.branch:
            self._show()  # a token that a reader chose is there at once, and so is its branch

        def publish_now_and_then() -> None:
            nonlocal published
            if run.branch.seconds - published >= SECONDS_BETWEEN_UPDATES:
                self._publish(run)
                published = run.branch.seconds

        try:
            run.write(self.model, self.tokenizer, self._logits, publish_now_and_then)
        except Exception as error:  # whatever it is, the person at the widget is to see it
            run.error = error

    def _publish(self, run: Run) -> None:
        if run is self.run and run.branch is self.branch:
            self._show_text(run.branch)

    def _show_text(self, branch: Branch) -> None:
        run = self.run if self.run is not None and self.run.branch is branch else None
        error = None if run is None else run.error
        self.view.error = "" if error is None else f"{type(error).__name__}: {error}"
        path = branch.path
        self.view.show(path)
        self.view.stale = branch.settings != self.settings  # last: until then the old tokens are on the page
        self.status.value = branch.summary()
        self.meter.value = meter_html(self.model, self._prompt_length + len(path))

    def _show(self) -> None:
        """Everything that there is to be seen of the shown branch and of the tree."""
        branch = self.branch
        self._show_text(branch)
        self.view.code = self.code
        self.view.forced = [each.fork for each in branch.lineage if each.forced]
        self.view.forks = self.tree.forks(branch)
        self.branches.html = tree_html(tree_rows(self.tree, branch)) if self.tree.branches else ""
        self._show_comparison()
        self._describe()

    def _show_comparison(self) -> None:
        alive = self._compared is not None and all(
            each in self.tree.branches and each.generated for each in self._compared
        )
        self.comparison.layout.display = "" if alive else "none"
        if alive:
            one, other = self._compared
            self.comparison.value = comparison_html(
                (f"branch {one.number}: {one.settings.says()}", f"branch {other.number}: {other.settings.says()}"),
                (one.path, other.path),
            )

    def _describe(self) -> None:
        """The distribution at the chosen token under the present settings, of what the model said when it wrote it."""
        branch, index = self.branch, self.view.chosen
        if branch is None or not 0 <= index < len(branch.path):
            self.view.describe("")
        elif self._logits.get(branch, index) is not None:
            self.view.describe(self._nucleus_html(branch, index, self.settings), f"{branch.number}:{index}")
        else:
            # Forgotten, or of a saved tree: one pass of the model gives it again, once no run needs the model.
            threading.Thread(target=self._read_again, args=(branch, index), daemon=True).start()

    def _read_again(self, branch: Branch, index: int) -> None:
        try:
            self._logits_at(branch, index)
        except Exception as error:
            self.view.error = f"{type(error).__name__}: {error}"
            return
        if (branch, index) == (self.branch, self.view.chosen):
            self._describe()

    def _changed(self, change: Any) -> None:
        if not self._following:
            return
        self._show_prompt()
        if self.as_you_type.value:
            self.generate(delay=SECONDS_AFTER_TYPING)
        self._describe()

    def _show_prompt(self) -> None:
        self.view.stale = self.branch is not None and self.branch.settings != self.settings
        self.view.code = self.code
        try:
            tokens = self._prompt_tokens(self.settings)
            self.view.prompt = tokens_html(shortened(tokens))
            self.view.error = ""
        except ValueError as error:
            self.view.error = str(error)
            return
        self._prompt_length = len(tokens)
        self.meter.value = meter_html(self.model, len(tokens) + (0 if self.branch is None else len(self.branch.path)))

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
                self._show()
            else:
                self.remove(number)
        except Exception as error:
            self.view.error = f"{type(error).__name__}: {error}"

    def remove(self, number: int) -> None:
        """Forget a branch and what grew from it; the last text stays."""
        branch = self.tree.numbered(number)
        gone = [branch, *self.tree.in_order(branch)]
        left = [each for each in self.tree.branches if each not in gone]
        if not left:
            raise ValueError("this is the only text; write another one before it is removed")
        if self.run is not None and self.run.branch in gone:
            self.stop()
        self.tree.remove(branch)
        self.select((branch.parent or left[-1]) if self.branch in gone else self.branch)
