"""The rules that keep the house, besides those of `./lab check`: floors, style, and environments that agree."""

import ast
import graphlib
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "persimmon_lab"
MODULES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("notebooks/*.md"), *PACKAGE.rglob("*.md")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

CORE_NEEDS = ("torch", "numpy", "einops", "jaxtyping", "safetensors", "sentencepiece", "zlib_ng", "huggingface_hub")
LEAVE_THE_CORE = ("widgets/", "cli/", "checks/", "training/", "fitting/offload.py")  # they import what they need
# What a part may import besides.
MORE = {
    "viz": ("matplotlib",),
    "numerics": ("pandas",),
    "trace": ("tqdm",),
    "generation": ("tqdm",),
    "finetuning": ("tqdm",),
    "evaluation": ("reasoning_gym", "lm_eval", "tqdm"),  # the first two where they are installed
}


def package_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def canonical(requirement: str) -> str:
    """The name that a requirement starts with: "Huggingface_Hub>=0.2" and "huggingface-hub" are one."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


each_module = pytest.mark.parametrize("path", MODULES, ids=package_name)


# The floors


def test_no_circles():
    imports = grimp.build_graph("persimmon_lab", cache_dir=None)
    order = {module: imports.find_modules_directly_imported_by(module) for module in imports.modules}
    graphlib.TopologicalSorter(order).prepare()  # a CycleError names the circle


def test_no_circles_of_folders():
    """Nor do the folders and files of a folder form any, each folder taken as one."""
    imports = grimp.build_graph("persimmon_lab", cache_dir=None)
    for folder in {module.rpartition(".")[0] for module in imports.modules if "." in module}:
        rooms = {}
        for module in imports.find_descendants(folder):
            room = module.removeprefix(f"{folder}.").split(".")[0]
            others = imports.find_modules_directly_imported_by(module)
            inside = {
                other.removeprefix(f"{folder}.").split(".")[0] for other in others if other.startswith(f"{folder}.")
            }
            rooms[room] = rooms.get(room, set()) | inside - {room}
        graphlib.TopologicalSorter(rooms).prepare()


@each_module
def test_imports_stand_at_the_top(path):
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    hidden = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")))
    ]
    assert not hidden


@each_module
def test_each_part_needs_only_its_packages(path):
    """The core runs on a bare GPU server, and figures know tensors and strings, nothing of the model."""
    if path.relative_to(PACKAGE).as_posix().startswith(LEAVE_THE_CORE):
        return
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = (*CORE_NEEDS, *MORE.get(part, ()), "persimmon_lab.viz" if part == "viz" else "persimmon_lab")
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    imported = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert not {name for name in imported if not f"{name}.".startswith(tuple(f"{need}." for need in allowed))}


def test_importing_the_package_stays_light():
    heavy = ("matplotlib", "pandas", "accelerate", "ipywidgets", "anywidget", "IPython", "typer", "rich",
             "transformers")  # fmt: skip
    program = f"import sys, persimmon_lab; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


# The style


@each_module
def test_layout_is_written_with_einops(path):
    if package_name(path) == "persimmon_lab/generation/engines/fast.py":
        return
    found = [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in {"view", "transpose", "permute", "reshape"}
        # x.view(torch.uint8) reads the same bytes as another dtype and leaves the layout alone
        if not (call.func.attr == "view" and re.fullmatch(r"torch\.\w+|dtype", ", ".join(map(ast.unparse, call.args))))
    ]
    assert not found


@each_module
def test_modules_are_named_for_an_idea(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


# The types


def comments(path: Path, word: str) -> list[str]:
    """The comments of a file that hold the word."""
    with tokenize.open(path) as file:
        tokens = [token for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.COMMENT]
    return [f"{package_name(path)}:{token.start[0]} {token.string}" for token in tokens if word in token.string]


def test_what_mypy_is_told_to_overlook_is_little_and_has_its_reason():
    overlooked = [comment for path in MODULES for comment in comments(path, "type: ignore")]
    assert [line for line in overlooked if not re.search(r"# type: ignore\[[a-z, -]+\]  # \w.+", line)] == []
    assert len(overlooked) <= 20, "\n".join(overlooked)
    assert [comment for path in MODULES for comment in comments(path, "mypy:")] == [], (
        "settings stand in pyproject.toml"
    )


# The documents


def links(document: Path) -> list[str]:
    """The files that a document links to, without addresses on the web and places within a page."""
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    return [target.split("#")[0] for target in targets if not re.match(r"https?:|mailto:|#", target)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=package_name)
def test_links_lead_somewhere(document):
    assert [target for target in links(document) if not (document.parent / target).exists()] == []


def test_every_notebook_is_listed_in_reading_order():
    listed = [target for target in links(ROOT / "notebooks" / "README.md") if target.endswith(".ipynb")]
    assert listed == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


# The environments


def test_constraints_pin_exactly_the_direct_dependencies():
    extras = PROJECT["optional-dependencies"]
    wanted = {canonical(line) for group in (PROJECT["dependencies"], *extras.values()) for line in group}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "a constraint is NAME==VERSION"
    assert [canonical(line) for line in lines] == sorted(wanted - {canonical(PROJECT["name"])})


def test_all_is_every_extra():
    extras = dict(PROJECT["optional-dependencies"])
    assert extras.pop("all") == [f"persimmon-lab[{','.join(extras)}]"]


def test_conda_delegates_to_the_project():
    """environment.yml asks for Python and pip, and leaves the rest to the two files that say it."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"] == [
        f"python{PROJECT['requires-python']}",
        "pip",
        {"pip": ["-c constraints.txt", "-e .[all]"]},
    ]


def test_pre_commit_runs_the_ruff_we_test_with():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ruff = next(repo for repo in hooks if repo["repo"].endswith("ruff-pre-commit"))
    assert f"ruff=={ruff['rev'].removeprefix('v')}" in (ROOT / "constraints.txt").read_text().splitlines()
