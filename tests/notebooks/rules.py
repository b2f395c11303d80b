"""The rules that CONTRIBUTING.md sets for a notebook, as far as they can be read off its cells.

A rule takes a notebook and yields what breaks it. None runs anything.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST_CELL = 25  # lines, without blank ones
ABSOLUTE = re.compile(r"(?<![\w.:/~])/(home|Users|work|tmp|root|mnt|media|workspace|content)/[\w.-]+|\b[A-Z]:\\{1,2}\w")
EQUALITY = re.compile(r"assert .*(==|\bequal\(|allclose\()|assert_close\(|assert_equal\(", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    index: int
    kind: str
    source: str
    tags: frozenset[str]
    hidden: bool = False
    left_out: bool = False
    count: int | None = None
    outputs: tuple[dict, ...] = ()

    @property
    def is_code(self) -> bool:
        return self.kind == "code"

    @cached_property
    def tree(self) -> ast.Module:
        """The cell as Python reads it, without the lines that IPython alone understands."""
        lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in self.source.splitlines())
        return ast.parse("\n".join(lines))

    @cached_property
    def defined(self) -> set[str]:
        """The names that the cell leaves behind."""
        names: set[str] = set()
        _collect(self.tree, names)
        return names

    @cached_property
    def used(self) -> set[str]:
        """All names that are read anywhere in the cell."""
        return {
            node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }


def _collect(node: ast.AST, names: set[str]) -> None:
    """The names that are bound in a block, but not inside a function, a class or a comprehension."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(inner.name)
        elif isinstance(inner, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in inner.names}
        elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.add(inner.id)
        elif not isinstance(inner, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            _collect(inner, names)


@dataclass(frozen=True)
class Notebook:
    name: str
    cells: tuple[Cell, ...]

    @classmethod
    def read(cls, path: Path) -> "Notebook":
        return cls.of(path.name, json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, name: str, document: dict) -> "Notebook":
        return cls(name, tuple(_cell(index, cell) for index, cell in enumerate(document["cells"])))

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def code(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.is_code]

    @cached_property
    def text(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells if not cell.is_code)

    @property
    def exercises(self) -> list[Cell]:
        """The stubs that ask for a function or a class; a cell for guesses is tagged `exercise` too."""
        return [cell for cell in self.tagged("exercise") if _names_asked_for(cell)]

    def tagged(self, tag: str) -> list[Cell]:
        return [cell for cell in self.code if tag in cell.tags]

    def after(self, exercise: Cell) -> list[Cell]:
        """The cells between an exercise and the next one."""
        following = [cell.index for cell in self.tagged("exercise") if cell.index > exercise.index]
        return list(self.cells[exercise.index + 1 : min(following, default=len(self.cells))])


def _cell(index: int, cell: dict) -> Cell:
    metadata = cell["metadata"]
    return Cell(
        index,
        cell["cell_type"],
        "".join(cell["source"]),
        frozenset(metadata.get("tags", ())),
        metadata.get("jupyter", {}).get("source_hidden", False),
        metadata.get("transient", {}).get("remove_source", False),
        cell.get("execution_count"),
        tuple(cell.get("outputs", ())),
    )


def _names_asked_for(cell: Cell) -> set[str]:
    return {node.name for node in cell.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


Rule = Callable[[Notebook], Iterator[str]]


def headings(notebook: Notebook) -> list[str]:
    return re.findall(r"^#+ .*", notebook.text, flags=re.MULTILINE)


# The opening


def title(notebook: Notebook) -> Iterator[str]:
    if not notebook.cells[0].source.startswith(f"# {notebook.number} · "):
        yield f"does not begin with “# {notebook.number} · ”"


def badge(notebook: Notebook) -> Iterator[str]:
    if not re.search(r"^\*[^*]*(CPU cores)[^*]*GPU", notebook.cells[0].source, flags=re.MULTILINE):
        yield "no line under the title says, in italics, how long it takes on CPU cores and what a GPU adds"


def what_is_built(notebook: Notebook) -> Iterator[str]:
    """The tour builds nothing of its own."""
    linked = re.search(r"modules? it builds: .*\]\(\.\./persimmon_lab/", notebook.cells[0].source)
    if notebook.number != "00" and not linked:
        yield "the opening does not link to the module that it builds"


def where_you_are(notebook: Notebook) -> Iterator[str]:
    if "*Where you are: " not in notebook.cells[0].source:
        yield "the opening does not say where the reader is and what is needed from before"


def objectives(notebook: Notebook) -> Iterator[str]:
    count = len(re.findall(r"^\d\. ", notebook.cells[0].source, flags=re.MULTILINE))
    if not 3 <= count <= 5:
        yield f"the opening has {count} numbered objectives; three to five are asked for"


# The way


def predict_first(notebook: Notebook) -> Iterator[str]:
    if not any("Predict first" in heading for heading in headings(notebook)):
        yield "no heading “Predict first”"


def break_it(notebook: Notebook) -> Iterator[str]:
    if not any("Break it" in heading for heading in headings(notebook)):
        yield "no heading “Break it”"


def equality(notebook: Notebook) -> Iterator[str]:
    solid = [cell for cell in notebook.code if not cell.tags & {"exercise", "solution", "check"}]
    if not any(EQUALITY.search(cell.source) for cell in solid):
        yield "no cell asserts that what was built equals the module"


def recap(notebook: Notebook) -> Iterator[str]:
    if not any(heading.startswith("## What you have") for heading in headings(notebook)):
        yield "no heading “What you have now”"
    if "Still open" not in notebook.text:
        yield "does not say what is still open"


def links(notebook: Notebook) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", notebook.text):
        if not target.startswith(("http", "mailto:", "attachment:")) and not (ROOT / "notebooks" / target).exists():
            yield f"the link to {target} leads nowhere"


# Exercises


def three_exercises(notebook: Notebook) -> Iterator[str]:
    levels = [
        level for level in ("Easy", "Medium", "Open") if not re.search(rf"(^### |\*\*){level}\b", notebook.text, re.M)
    ]
    if levels:
        yield f"no exercise is called {' or '.join(levels)}"
    if len(notebook.exercises) < 2:
        yield f"{len(notebook.exercises)} exercises with a stub; two at least are asked for"


def three_cells(notebook: Notebook) -> Iterator[str]:
    for exercise in notebook.exercises:
        missing = {"solution", "check"} - {tag for cell in notebook.after(exercise) for tag in cell.tags}
        if missing:
            names = ", ".join(_names_asked_for(exercise))
            yield f"cell {exercise.index}, {names}: no {' and no '.join(sorted(missing))}"


def hints(notebook: Notebook) -> Iterator[str]:
    for exercise in notebook.exercises:
        if "<summary>" not in notebook.cells[exercise.index - 1].source:
            yield f"cell {exercise.index}, {', '.join(_names_asked_for(exercise))}: no hints to unfold before it"


def solutions_are_hidden(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.tagged("solution"):
        if not cell.hidden:
            yield f"cell {cell.index}: a solution that is not collapsed (metadata jupyter.source_hidden)"


def answers_stay(notebook: Notebook) -> Iterator[str]:
    asked = {name for exercise in notebook.exercises for name in _names_asked_for(exercise)}
    stubs = [cell.index for cell in notebook.exercises]
    for cell in notebook.code:
        overwritten = cell.defined & asked
        if overwritten and "exercise" not in cell.tags and cell.index > min(stubs):
            yield f"cell {cell.index}: “Run All” overwrites the reader's {', '.join(sorted(overwritten))}"


def without_solutions(notebook: Notebook) -> Iterator[str]:
    """A copy for students has no solutions, and its other cells run all the same."""
    solved: set[str] = set()
    defined: set[str] = set()
    for cell in notebook.code:
        if "solution" in cell.tags:
            solved |= cell.defined
            continue
        for name in sorted((cell.used & solved) - defined - cell.defined):
            yield f"cell {cell.index} uses {name}, which a solution alone defines"
        defined |= cell.defined


def checks(notebook: Notebook) -> Iterator[str]:
    files = sorted((ROOT / "persimmon_lab" / "checks").glob(f"nb{notebook.number}_*.py"))
    if not files:
        yield f"no module persimmon_lab/checks/nb{notebook.number}_….py marks its exercises"
    for file in files:
        if not (ROOT / "tests" / "checks" / f"test_{file.name}").exists():
            yield f"{file.name} has no tests in tests/checks/"
        if f"import {file.stem}" not in "\n".join(cell.source for cell in notebook.code):
            yield f"{file.name} is not imported"


# What is stored


def short_cells(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.code:
        count = sum(bool(line.strip()) for line in cell.source.splitlines())
        if count > LONGEST_CELL and "solution" not in cell.tags:
            yield f"cell {cell.index} has {count} lines"


def outputs(notebook: Notebook) -> Iterator[str]:
    if [cell.count for cell in notebook.code] != list(range(1, len(notebook.code) + 1)):
        yield "its outputs are not those of one run from the top"
    for cell in notebook.code:
        if any(output.get("output_type") == "error" for output in cell.outputs) and "raises-exception" not in cell.tags:
            yield f"cell {cell.index} ends in an error"


def no_absolute_paths(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.cells:
        texts = [cell.source]
        for output in cell.outputs:
            data = output.get("data", {})
            texts += [
                "".join(output.get("text", "")),
                *("".join(data.get(kind, "")) for kind in ("text/plain", "text/html")),
            ]
        for text in texts:
            if path := ABSOLUTE.search(text):
                yield f"cell {cell.index} names {path[0]}, a path on one machine"


def drawings_end_well(notebook: Notebook) -> Iterator[str]:
    for cell in notebook.code:
        if cell.source.rstrip().endswith(";"):
            yield f"cell {cell.index} ends with a semicolon; end it with plt.show() or the figure"


def browser_test(notebook: Notebook) -> Iterator[str]:
    shows_widgets = any("persimmon_lab.widgets import" in cell.source for cell in notebook.code)
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "browser").glob("test_*.py"))
    if shows_widgets and not any(notebook.name in test for test in tests):
        yield "it shows a widget, and no test in tests/browser/ opens it"


# As CONTRIBUTING.md calls them.
RULES: dict[str, Rule] = {
    "Title": title,
    "Badge": badge,
    "What is built": what_is_built,
    "Where you are": where_you_are,
    "Objectives": objectives,
    "Predict first": predict_first,
    "Equality": equality,
    "Break it": break_it,
    "Recap": recap,
    "Links": links,
    "Exercises": three_exercises,
    "Three cells": three_cells,
    "Hints": hints,
    "Collapsed solutions": solutions_are_hidden,
    "The reader's answer": answers_stay,
    "Copies for students": without_solutions,
    "Checks": checks,
    "Short cells": short_cells,
    "Outputs": outputs,
    "No absolute paths": no_absolute_paths,
    "No semicolon": drawings_end_well,
    "Browser": browser_test,
}
