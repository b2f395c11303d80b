"""The documents say what the code does: made ones are current, walks go where they say, every tap is in its table."""

import ast
import re
import sys
import tarfile
import threading
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import persimmon_lab
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification
from persimmon_lab.adept.export import export_release
from persimmon_lab.anatomy import INPUT, LAYER, PARTS, any_layer, axis_sizes
from persimmon_lab.checks import nb02_shapes
from persimmon_lab.cli import convert, generate
from persimmon_lab.cli.options import Engine
from persimmon_lab.mini import MINI, load_mini
from persimmon_lab.trace.eager import EAGER_TAPS
from persimmon_lab.widgets import GenerationPlayground
from persimmon_lab.widgets.playground import session
from tools import documents

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "persimmon_lab"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CODE_LINK = re.compile(r"\[`([^`]+)`\]\(\.\./persimmon_lab/([^)]+)\)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# What is made


@pytest.fixture(scope="module")
def made():
    return documents.documents()


def test_made_documents_are_current(made):
    """After a change of names, docstrings, floors or taps: python tools/documents.py."""
    assert [path.name for path in made] == ["floors.svg", "taps.md", "api.md"]
    assert documents.stale(made) == []


def test_making_them_twice_gives_the_same_bytes(made):
    assert documents.documents() == made


def test_check_names_what_is_stale(monkeypatch, capsys, tmp_path):
    fresh, old, absent = (tmp_path / name for name in ("fresh.md", "old.md", "absent.md"))
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "documents", lambda: dict.fromkeys((fresh, old, absent), "now\n"))
    fresh.write_text("now\n")
    old.write_text("then\n")
    assert documents.main(["--check"]) == 1
    assert [line.partition(": stale")[0] for line in capsys.readouterr().out.splitlines()] == ["old.md", "absent.md"]
    assert old.read_text() == "then\n"
    assert documents.main([]) == 0
    assert old.read_text() == absent.read_text() == "now\n"
    assert documents.main(["--check"]) == 0


def test_the_picture_has_every_room_of_the_contracts_and_no_other(made):
    picture = made[ROOT / "docs" / "pictures" / "floors.svg"]
    drawn = re.findall(r'<rect class="(folder|file|planned)"[^>]*/><text [^>]*>([^<]+)</text>', picture)
    rooms = [room for floor in documents.floors() for room in floor]
    assert [name for _, name in drawn] == [*rooms, "viz"]
    there = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for kind, name in drawn if kind != "planned"} == there - {"__init__"}


def test_the_names_are_those_that_an_import_finds(made):
    """The page is read from the sources; here a few modules are imported and asked."""
    names = documents.Names()
    for module in ("persimmon_lab", "persimmon_lab.generation", "persimmon_lab.attention", "persimmon_lab.trace.names"):
        for name in names.public(module):
            assert hasattr(sys.modules[module], name.name), f"{module}.{name.name}"
    assert {name.name for name in names.public("persimmon_lab")} == set(persimmon_lab.__all__)
    first = {name.name: name.first for name in names.public("persimmon_lab.attention")}
    assert first["split_heads"] == "Query, key and value out of the fused projection, of all its heads."
    assert "PersimmonModel._mask" not in made[ROOT / "docs" / "api.md"]


def test_every_public_module_is_on_the_page(made):
    page = made[ROOT / "docs" / "api.md"]
    listed = set(re.findall(r"^### \[`([\w.]+)`\]", page, flags=re.MULTILINE))
    spoken = {name for name, tree in documents.Names().trees.items() if tree.body}
    assert listed == spoken


# The taps


@pytest.fixture(scope="module")
def taps_table():
    """The rows of every table of docs/taps.md by name: axes, shape, and the whole row."""
    rows = {}
    for line in (ROOT / "docs" / "taps.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            name, axes, shape, *rest = (cell.strip() for cell in line.strip("|").split(" | "))
            rows[name.strip("` ")] = (axes, shape, rest)
    return rows


def test_every_tap_of_the_code_is_in_the_table(taps_table):
    tiny = PersimmonConfig.tiny()
    for model in (PersimmonForCausalLM(tiny), PersimmonForSequenceClassification(tiny)):
        taps = [path for path, module in model.named_modules() if isinstance(module, nn.Identity)]
        places = [path for path, module in model.named_modules() if path and path != "model"]
        assert taps
        names = {any_layer(path) for path in [*taps, *places] if not path.endswith(".layers")}
        assert names <= set(taps_table)


def test_every_row_of_the_table_is_seen_in_a_run(taps_table):
    seen = {row.sighting.name: row for row in documents.rows()}
    assert set(taps_table) <= set(seen)
    sizes = axis_sizes(PersimmonConfig.tiny(num_labels=3), documents.BATCH, documents.POSITIONS, documents.PAST)
    for name, (axes, shape, rest) in taps_table.items():
        sighting = seen[name].sighting
        assert axes == " ".join(sighting.axes)
        assert shape == documents.shown(sighting.shape)
        if documents.PAST and sighting.part != "score":
            assert sighting.shape == tuple(sizes[axis] for axis in sighting.axes), name
        if not name.endswith(INPUT):
            assert (rest[1] == documents.EAGER) == (sighting.part in EAGER_TAPS)


def test_what_the_tables_know_is_what_trace_knows(taps_table):
    parts = {LAYER if name.endswith(LAYER) else name.rpartition(".")[2] for name in taps_table if INPUT not in name}
    assert parts == set(PARTS) == set(documents.WHERE)
    inputs = {name.removesuffix(INPUT).rpartition(".")[2] for name in taps_table if name.endswith(INPUT)}
    assert inputs == {name for name, part in PARTS.items() if part.input_axes not in (None, part.output_axes)}


def test_the_drawing_of_a_layer_has_every_name_of_a_layer(taps_table):
    inside = {name.removeprefix(f"model.{LAYER}.").rpartition(".")[2] for name in taps_table if f"{LAYER}." in name}
    missing = {part for part in inside if not re.search(rf"\b{part.removesuffix(INPUT)}\b", documents.DIAGRAM)}
    assert missing == set()


# The walks


def defined_in(path: Path) -> set[str]:
    """Every function, class and value of a file, with the class before a method's name."""
    names = set()

    def walk(node: ast.AST, before: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(before + inner.name)
                walk(inner, f"{before}{inner.name}.")
            elif isinstance(inner, ast.Assign):
                names.update(before + target.id for target in inner.targets if isinstance(target, ast.Name))

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return names


def test_the_walks_name_only_what_exists():
    links = CODE_LINK.findall(ARCHITECTURE.read_text(encoding="utf-8"))
    assert len(links) > 80
    for label, target in links:
        file, _, name = label.rpartition(":")
        path = PACKAGE / target
        assert path.is_file(), label
        assert file in ("", target), f"{label} leads to {target}"
        if path.suffix == ".js":
            assert re.search(rf"\b(const|function) {name}\b", path.read_text(encoding="utf-8")), label
        else:
            assert name in defined_in(path), label


def test_other_links_lead_somewhere():
    for page in (ROOT / "docs").glob("*.md"):
        targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        local = [target for target in targets if not target.startswith("http")]
        assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_room_has_its_line():
    page = ARCHITECTURE.read_text(encoding="utf-8").partition("## A prompt")[0]
    told = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", page, flags=re.MULTILINE)))
    assert sorted(told) == sorted([*(room for floor in documents.floors() for room in floor), "viz"])


def walk_of(title: str) -> list[tuple[str, str]]:
    """The (file, function) pairs of a walk's steps, in the order of the page; a class stands for its __init__."""
    section = ARCHITECTURE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    steps = section.partition("\n1. ")[2].partition("\n\n")[0]
    pairs = []
    for label, target in CODE_LINK.findall(steps):
        file, _, name = label.rpartition(":")
        if file and target.endswith(".py"):  # a label without its file is mentioned and no step
            is_class = name.rpartition(".")[2][0].isupper()
            pairs.append((target, f"{name}.__init__" if is_class else name))
    return pairs


class Footsteps:
    """Within the block, the order in which functions of the package are first called, by any thread."""

    def __init__(self):
        self.order: dict[tuple[str, str], int] = {}

    def _heard(self, frame, event, _argument):
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            file = Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()
            self.order.setdefault((file, frame.f_code.co_qualname), len(self.order))

    def __enter__(self):
        threading.setprofile(self._heard)
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        threading.setprofile(None)

    def follow(self, title: str) -> None:
        walk = walk_of(title)
        assert len(walk) == len(set(walk)) > 4
        assert [step for step in walk if step not in self.order] == [], "named, and not called"
        assert walk == sorted(walk, key=self.order.get)


def test_a_prompt(capsys):
    with Footsteps() as footsteps:
        generate.generate("Shall I compare thee", max_new_tokens=3, temperature=0.8, seed=1, engine=Engine.plain)
    assert capsys.readouterr().out.strip()
    footsteps.follow("A prompt")


def test_a_folder(tmp_path):
    with Footsteps() as footsteps:
        model = PersimmonForCausalLM.from_pretrained(MINI, torch_dtype="auto")
        model.save_pretrained(tmp_path)
    footsteps.follow("A folder")


def test_a_release(tmp_path, capsys):
    source = PersimmonForCausalLM(PersimmonConfig.tiny(), torch.Generator().manual_seed(0))
    source.save_pretrained(tmp_path / "checkpoint")
    export_release(tmp_path / "checkpoint", tmp_path / "release", tensor_parallel=2)
    with tarfile.open(tmp_path / "release.tar", "w") as tar:
        tar.add(tmp_path / "release", arcname="release")
    with Footsteps() as footsteps:
        convert.convert(tmp_path / "release.tar", tmp_path / "converted", verify=True)
    assert "equal to the bit" in capsys.readouterr().out
    footsteps.follow("A release")


def test_a_click(monkeypatch):
    monkeypatch.setattr(session, "SECONDS_BETWEEN_UPDATES", 0.0)  # a fast machine is done before the first of them
    playground = GenerationPlayground(*load_mini(), "Shall I compare", max_new_tokens=4).generate().wait()
    with Footsteps() as footsteps:
        playground.view._answer(None, {"type": "choose", "index": 1}, [])
        written = playground.branch.tokens[1].token_id
        ids = (
            playground.tokenizer.convert_tokens_to_ids(piece) for piece, _ in playground.branch.tokens[1].alternatives
        )
        other = next(token_id for token_id in ids if token_id != written)
        playground.view._answer(None, {"type": "take", "about": playground.view._about, "token": other}, [])
        playground.wait()
    assert playground.branch.path[1].token_id == other
    footsteps.follow("A click")


def test_an_answer():
    with Footsteps() as footsteps:
        verdict = nb02_shapes.merge_heads(lambda heads: nb02_shapes.merged("batch position (channel head)")(heads))
        assert "shuffled together" in repr(verdict)
    footsteps.follow("An answer")


# The project


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["references"][0]["url"] == "https://www.adept.ai/blog/persimmon-8b"


def test_version_is_the_installed_one(monkeypatch):
    assert persimmon_lab.__version__ == PROJECT["version"], "install the checkout again: ./lab setup"

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(persimmon_lab, "version", missing)
    assert persimmon_lab.installed_version() == "0+unknown"
