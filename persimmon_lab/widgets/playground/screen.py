"""What is to be seen of a session: its text, what each token could have been, its branches, and signs around them."""

from collections.abc import Callable

from IPython.display import HTML

from persimmon_lab.viz.html.comparison import comparison_html
from persimmon_lab.viz.html.nucleus import nucleus_html
from persimmon_lab.viz.html.tokens import page_html, tokens_html
from persimmon_lab.viz.html.tree import tree_html
from persimmon_lab.widgets.page import page
from persimmon_lab.widgets.playground.background import in_background
from persimmon_lab.widgets.playground.branch_view import BranchView, tree_rows
from persimmon_lab.widgets.playground.layout import Parts
from persimmon_lab.widgets.playground.meter import meter_html
from persimmon_lab.widgets.playground.run import Run
from persimmon_lab.widgets.playground.session import Session
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.text import shortened
from persimmon_lab.widgets.playground.token_view import TokenView
from persimmon_lab.widgets.playground.tree import Branch, Tree

OTHER_MODEL = "opened from a file that another model wrote: its probabilities are not this model’s"


class Screen:
    """Shows a session in these views and parts, and what it does by itself; `settings()` is what the controls say."""

    def __init__(
        self,
        session: Session,
        view: TokenView,
        branches: BranchView,
        parts: Parts,
        settings: Callable[[], Settings],
    ) -> None:
        self.session = session
        self.view = view
        self.branches = branches
        self.parts = parts
        self.settings = settings
        self._prompt_length = 0
        session.on_growth = self.show_text
        session.on_change = self.show

    def show(self) -> None:
        """Everything that there is to be seen of the shown branch and of the tree."""
        session, branch = self.session, self.session.shown
        self.show_text()
        self.view.code = session.code(self.settings())
        self.view.forced = [part.fork for part in branch.lineage if part.forced]
        self.view.forks = session.tree.forks(branch)
        self.branches.html = tree_html(tree_rows(session.tree, branch)) if session.tree.branches else ""
        self._show_comparison()
        self.describe()
        self.show_work()

    def show_text(self) -> None:
        branch, error = self.session.shown, self.session.error
        self.view.error = "" if error is None else _said(error)
        path = branch.path
        self.view.show(path)
        self.view.stale = branch.settings != self.settings()  # last: until then the old tokens are on the page
        remark = OTHER_MODEL if self.session.is_of_another_model else ""
        self.parts.status.value = " · ".join(filter(None, (branch.summary(), remark)))
        self._show_meter(len(path))

    def show_prompt(self) -> None:
        """What the controls say: their prompt, or why it is none, and whether the shown text is still of them."""
        branch, settings = self.session.branch, self.settings()
        self.view.stale = branch is not None and branch.settings != settings
        self.view.code = self.session.code(settings)
        try:
            tokens = self.session.prompt_tokens(settings)
        except ValueError as error:
            self.view.error = str(error)
            return
        self.view.prompt = tokens_html(shortened(tokens))
        self.view.error = ""
        self._prompt_length = len(tokens)
        self._show_meter(0 if branch is None else len(branch.path))

    def show_work(self) -> None:
        self.parts.stop.disabled = not self.session.working

    def show_error(self, error: Exception) -> None:
        self.view.error = _said(error)

    def describe(self) -> None:
        """The distribution at the chosen token under the present settings, of what the model said when it wrote it."""
        branch, index = self.session.branch, self.view.chosen
        if branch is None or not 0 <= index < len(branch.path):
            self.view.describe("")
        elif self.session.logits.get(branch, index) is not None:
            details = nucleus_html(self.session.nucleus_at(branch, index, self.settings()), self.view.log)
            self.view.describe(details, f"{branch.number}:{index}")
        else:
            # Forgotten, or of a saved tree: one pass of the model gives it again, once no run needs the model.
            in_background(lambda: self._read_again(branch, index))

    def static(self, inspect: int | None = None) -> HTML:
        """The shown text (made now if there is none) as a page, with the details of the token at `inspect`, by default
        the least probable one, and the branches if there are several. Raises what generating raised."""
        session = self.session
        branch = session.branch
        if branch is None:
            branch = Tree().add(self.settings())
            Run(branch).write(session.model, session.tokenizer, session.logits)
        elif session.error is not None:
            raise session.error
        path = branch.path
        prompt = shortened(session.prompt_tokens(branch.settings))
        if inspect is None:
            probabilities = [token.probability or 0.0 for token in path]
            inspect = min(range(len(path)), key=probabilities.__getitem__, default=0)
        details = nucleus_html(session.nucleus_at(branch, inspect, branch.settings), self.view.log) if path else ""
        rows = tree_rows(session.tree, branch) if len(session.tree.branches) > 1 else []
        html = page_html(prompt, path, details, inspect) + (tree_html(rows) if rows else "")
        return page(html)

    def _show_meter(self, tokens: int) -> None:
        self.parts.meter.value = meter_html(self.session.model, self._prompt_length + tokens)

    def _show_comparison(self) -> None:
        compared = self.session.compared
        alive = [branch for branch in compared or () if branch in self.session.tree.branches and branch.generated]
        self.parts.comparison.layout.display = "" if len(alive) == 2 else "none"
        if len(alive) == 2:
            one, other = alive
            names = tuple(f"branch {branch.number}: {branch.settings.says()}" for branch in alive)
            self.parts.comparison.value = comparison_html((names[0], names[1]), (one.path, other.path))

    def _read_again(self, branch: Branch, index: int) -> None:
        try:
            self.session.logits_at(branch, index)
        except Exception as error:
            self.show_error(error)
            return
        if (branch, index) == (self.session.branch, self.view.chosen):
            self.describe()


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
