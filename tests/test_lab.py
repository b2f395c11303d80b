"""The command `./lab`: what it installs and when, what it opens, and notebooks that are refreshed and compared."""

import ast
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import jaxtyping
import nbformat
import pytest

from persimmon_lab.mlp import squared_relu
from tests.browser.conftest import find_chromium

ROOT = Path(__file__).parents[1]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The script as a module, on a copy of the repository's two files; `commands` records instead of running."""
    loader = importlib.machinery.SourceFileLoader("lab_script", str(ROOT / "lab"))
    script = importlib.util.module_from_spec(importlib.util.spec_from_loader("lab_script", loader))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(script)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    script.commands = []

    def run(*command):
        script.commands.append(" ".join(map(str, command[1:])))
        if "venv" in command:
            shutil.rmtree(script.VENV, ignore_errors=True)
            script.PYTHON.parent.mkdir(parents=True)
            script.PYTHON.touch()

    replaced = {"ROOT": tmp_path, "VENV": tmp_path / ".venv", "STAMP": tmp_path / ".venv" / "lab-stamp", "run": run}
    replaced |= {"PYTHON": replaced["VENV"] / "bin" / "python", "succeeds": lambda *command: True, "become": run}
    for name, value in replaced.items():
        monkeypatch.setattr(script, name, value)
    return script


def kinds(commands: list[str]) -> list[str]:
    return [command.split()[1] for command in commands]


# Setting up


def test_needs_nothing_but_python():
    tree = ast.parse((ROOT / "lab").read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= set(sys.stdlib_module_names)


def test_an_old_python_is_told_what_to_do():
    source = (ROOT / "lab").read_text()
    ast.parse(source, feature_version=(3, 7))  # else it would meet a SyntaxError before the message
    program = f"import sys; sys.version_info = (3, 9, 1); exec({source!r})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1
    assert "needs Python 3.11 or newer; this is 3.9" in result.stderr


def test_installs_once(lab):
    lab.setup()
    assert kinds(lab.commands) == ["venv", "pip"]
    assert lab.commands[1].endswith("--constraint constraints.txt --editable .[lab]")
    lab.setup()
    assert len(lab.commands) == 2


def test_adds_the_extras_that_a_command_needs(lab, monkeypatch):
    monkeypatch.setattr(lab, "check", lambda: None)
    lab.main("open")
    lab.main("test", "-x")
    assert [line.split()[-1] for line in lab.commands if "pip" in line] == [".[lab]", ".[clients,lab,offload,test,web]"]
    for command in ("open", "refresh", "setup", "test"):  # a superset will do
        lab.main(command)
    assert sum("pip install" in line for line in lab.commands) == 2
    lab.main("setup", "bench")
    assert lab.commands[-1].endswith(".[bench,clients,lab,offload,test,web]")  # what was there stays


def test_a_stamp_without_extras_costs_one_pip(lab):
    lab.setup()
    lab.STAMP.write_text(lab.fingerprint())  # what ./lab wrote when it installed everything
    lab.setup("test")
    lab.setup("test")
    assert kinds(lab.commands) == ["venv", "pip", "pip"]


def test_an_unknown_extra_is_refused(lab):
    lab.setup()
    with pytest.raises(SystemExit, match="no extra tset; it has lab, "):
        lab.main("setup", "tset")
    assert len(lab.commands) == 2


def test_extras_that_fail_to_install_leave_the_reader_s(lab, monkeypatch):
    lab.setup()
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(lab, "run", lambda *command: sys.exit("no network"))
        lab.setup("test")
    lab.setup()
    assert len(lab.commands) == 2


@pytest.mark.parametrize(
    ("name", "old", "new", "pips"),
    [
        ("pyproject.toml", '"einops>=0.8"', '"einops>=0.9"', 2),
        ("pyproject.toml", "line-length = 120", "line-length = 100", 1),  # a tool's setting installs nothing
        ("constraints.txt", "einops==0.8.2", "einops==0.8.1", 2),
    ],
)
def test_installs_again_when_the_dependencies_change(lab, name, old, new, pips):
    lab.setup()
    text = (lab.ROOT / name).read_text()
    assert old in text
    (lab.ROOT / name).write_text(text.replace(old, new))
    lab.setup()
    assert kinds(lab.commands) == ["venv", *["pip"] * pips]


def test_a_failed_setup_keeps_the_environment(lab, monkeypatch):
    def failing(*command):
        recorded(*command)
        if "pip" in command:
            sys.exit("no network")

    recorded = lab.run
    monkeypatch.setattr(lab, "run", failing)
    with pytest.raises(SystemExit):
        lab.setup()
    monkeypatch.setattr(lab, "run", recorded)
    lab.setup()
    assert kinds(lab.commands) == ["venv", "pip", "pip"]


def test_an_interrupted_setup_is_made_anew(lab, monkeypatch):
    def interrupted(*command):
        if "pip" in command:
            raise KeyboardInterrupt
        recorded(*command)

    recorded = lab.run
    monkeypatch.setattr(lab, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.setup()
    monkeypatch.setattr(lab, "run", recorded)
    lab.setup()
    lab.setup()
    assert kinds(lab.commands) == ["venv", "venv", "pip"]


def test_a_broken_environment_is_made_anew(lab, monkeypatch):
    lab.setup()
    lab.STAMP.unlink()
    monkeypatch.setattr(lab, "succeeds", lambda *command: False)  # no pip in there
    lab.setup()
    assert kinds(lab.commands) == ["venv", "pip", "venv", "pip"]


def test_a_missing_venv_package_is_named(lab, monkeypatch):
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"sudo apt-get install -y python3\.\d+-venv"):
        lab.setup()
    assert lab.commands == []


def belonging_to(venv: Path, checkout: Path, *, command: str = "", installed: Path | None = None) -> None:
    """Write what venv and pip leave in an environment; `command` is what made it, `installed` where the code lies."""
    (checkout / "lab").touch()
    venv.mkdir(parents=True, exist_ok=True)
    made = f"command = /usr/bin/python3.11 {command}\n" if command else ""
    (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = 3.11.7\n{made}")
    if installed is not None:
        record = venv / "lib" / "python3.11" / "site-packages" / "persimmon_lab-0.1.0.dist-info" / "direct_url.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"dir_info": {"editable": True}, "url": installed.as_uri()}))


@pytest.fixture
def original(tmp_path_factory):
    """Another checkout, whose path has a space."""
    return tmp_path_factory.mktemp("the original") / "our lab"


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "copied"])
@pytest.mark.parametrize("evidence", ["command", "installed"])
@pytest.mark.parametrize("stamped", [True, False])
def test_another_checkout_s_environment_is_left_alone(lab, original, linked, evidence, stamped):
    original.mkdir()
    venv = original / ".venv" if linked else lab.VENV
    given = {"command": f"-m venv --clear {original / '.venv'}"} if evidence == "command" else {"installed": original}
    belonging_to(venv, original, **given)
    if linked:
        lab.VENV.symlink_to(venv)
    if stamped:  # as it is after an earlier ./lab has made it this folder's
        lab.PYTHON.parent.mkdir()
        lab.PYTHON.touch()
        lab.STAMP.write_text(lab.fingerprint())
    before = sorted(venv.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        lab.main("test")
    told = str(stopped.value.code)
    assert f"of another checkout, {original}," in told
    assert f"Delete {lab.VENV} ({'only the link' if linked else 'a copy'};" in told and "run ./lab again" in told
    assert lab.commands == [] and sorted(venv.rglob("*")) == before
    lab.VENV.unlink() if linked else shutil.rmtree(lab.VENV)
    lab.setup()  # what it was told to do helps
    assert kinds(lab.commands) == ["venv", "pip"]


@pytest.mark.parametrize("case", ["own", "own, repointed", "moved", "elsewhere", "other tool"])
def test_environments_that_are_no_other_checkout_s(lab, original, case):
    """Made here; made here and then taken by a copy; moved with the folder; on another disk; made by another tool."""
    original.mkdir()
    command = {"moved": f"-m venv {original / '.venv'}", "other tool": ""}.get(case, f"-m venv {lab.VENV}")
    installed = {"own": lab.ROOT, "other tool": lab.ROOT}.get(case, original)
    if case == "elsewhere":
        command, installed = f"-m venv --clear {original / 'room'}", lab.ROOT
        belonging_to(original / "room", lab.ROOT, command=command, installed=installed)
        lab.VENV.symlink_to(original / "room")
    else:
        belonging_to(lab.VENV, original, command=command, installed=installed)
    if case == "moved":
        shutil.rmtree(original)
    lab.PYTHON.parent.mkdir()
    lab.PYTHON.touch()
    lab.setup()
    assert kinds(lab.commands) == ["pip"]


def test_an_unknown_command_shows_the_help(lab, capsys):
    with pytest.raises(SystemExit) as stopped:
        lab.main("tset")
    assert stopped.value.code == 2
    assert "'tset'" in (told := capsys.readouterr().err)
    assert all(f"./lab {name}" in told for name in lab.COMMANDS)
    assert lab.commands == []


def test_pytest_arguments_are_handed_on(lab):
    lab.main("test", "-k", "rotary", "-x")
    assert lab.commands[-1] == "-m pytest -n 2 --dist loadfile --nbval -k rotary -x"


def test_the_benchmark_makes_its_old_peer_once(lab):
    lab.main("bench", "--quick")
    assert lab.commands[-2:] == ["-m benchmarks.old_transformers", "-m benchmarks.speed --quick"]
    (lab.ROOT / "benchmarks" / ".venv-4.37.2").mkdir(parents=True)
    count = len(lab.commands)
    lab.main("bench", "--quick")
    assert len(lab.commands) == count + 1 and lab.commands[-1] == "-m benchmarks.speed --quick"


# Checking


@pytest.fixture
def checks(lab, monkeypatch):
    """Stand-ins for the checks, run by this Python."""
    monkeypatch.setattr(lab, "setup", lambda *extras: None)
    monkeypatch.setattr(lab, "PYTHON", sys.executable)
    monkeypatch.setattr(lab, "CHECKS", {"first": ["-c", "print('fine')"], "second": ["-c", "print('also')"]})
    return lab.CHECKS


def test_a_check_says_what_passed(lab, checks, capsys):
    lab.main("check")
    assert capsys.readouterr().out == "first: passed\nsecond: passed\n"


def test_a_check_goes_on_and_says_what_broke(lab, checks, capsys):
    checks["first"] = ["-c", "import sys; sys.exit('a line too long')"]
    with pytest.raises(SystemExit, match="first broken"):
        lab.main("check")
    assert capsys.readouterr().out == "first: broken\na line too long\n\nsecond: passed\n"


def test_checks_are_selected_by_name(lab, checks, capsys):
    lab.main("check", "second")
    assert capsys.readouterr().out == "second: passed\n"
    with pytest.raises(SystemExit, match="no third, fourth; it has first, second,"):
        lab.main("check", "second", "third", "fourth")
    assert capsys.readouterr().out == ""


def test_the_checks(lab):
    assert list(lab.CHECKS) == ["format", "lint", "contracts", "types"]


def test_all_adds_the_other_versions(lab, checks, capsys, monkeypatch):
    lab.main("test", "--all", "lowest")
    assert capsys.readouterr().out == "" and lab.commands[-1] == "-m tools.versions lowest"
    codes = iter([0, 0, 0, 0, 0, 1])  # of two checks and the tests
    run = lambda command, **_: lab.commands.append(command) or subprocess.CompletedProcess(command, next(codes), "")  # noqa: E731
    monkeypatch.setattr(lab.subprocess, "run", run)
    lab.main("test", "--all")
    assert "second: passed" in capsys.readouterr().out
    assert lab.commands[-2][1:3] == ["-m", "pytest"] and lab.commands[-1] == "-m tools.versions"
    with pytest.raises(SystemExit):
        lab.main("test", "--all")
    assert lab.commands[-1][1:3] == ["-m", "pytest"]


def test_all_tests_begin_with_the_check(lab, checks, capsys):
    lab.main("test")
    assert "second: passed" in capsys.readouterr().out
    assert lab.commands[-1] == "-m pytest -n 2 --dist loadfile --nbval"
    checks["first"] = ["-c", "raise SystemExit(1)"]
    lab.main("test", "-x")  # a selection is not checked
    assert lab.commands[-1].endswith("--nbval -x")
    count = len(lab.commands)
    with pytest.raises(SystemExit, match="first broken"):
        lab.main("test")
    assert len(lab.commands) == count


# Opening


def fetch(address: str) -> bytes:
    """The server names its address a moment before it listens there."""
    for _ in range(300):
        try:
            return urllib.request.urlopen(address).read()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise TimeoutError(address)


def test_opens_the_tour_here_only_and_with_its_token(lab, monkeypatch, tmp_path):
    tour = tmp_path / "notebooks" / "00_tour.ipynb"
    tour.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), tour)
    started = []
    monkeypatch.setattr(lab, "become", lambda python, *command: started.append([sys.executable, *map(str, command)]))
    lab.main("open", "--no-browser", "--ServerApp.port=0")
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    process = subprocess.Popen(
        started[0], env=os.environ | folders, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        address = next(line.split()[-1] for line in process.stdout if "http://127.0.0.1" in line)
        assert "/lab/tree/notebooks/00_tour.ipynb?token=" in address
        host, token = address.split("/lab")[0], address.split("token=")[1]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            fetch(f"{host}/api/contents")
        assert json.loads(fetch(f"{host}/api/contents?token={token}"))["type"] == "directory"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize(("command", "given", "kept"), [
    ("open", None, "30000"), ("refresh", None, "30000"), ("open", "7", "7"), ("bench", None, None),
])  # fmt: skip
def test_notebooks_are_polite_to_a_busy_neighbour(lab, monkeypatch, command, given, kept):
    monkeypatch.setenv("GOMP_SPINCOUNT", given or "")
    if given is None:
        del os.environ["GOMP_SPINCOUNT"]
    lab.main(command)
    assert os.environ.get("GOMP_SPINCOUNT") == kept


# Notebooks


CELLS = [
    "import warnings\nwarnings.warn('a warning')\nprint('said')",
    "import ipywidgets\nipywidgets.IntSlider(3)",
    "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2])\nplt.show()",
]


def write_notebook(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{index}") for index, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def refresh(*paths: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / "refresh.py", *paths]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MPLBACKEND": "agg"})


def compare(folder: Path) -> str:
    """What nbval says of the notebooks in a folder, with this repository's settings."""
    shutil.copy(ROOT / "notebooks" / "conftest.py", folder)
    settings = [f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "--nbval", *settings, folder]
    environment = os.environ | {"MPLBACKEND": "agg"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment).stdout


def test_refreshing_twice_gives_the_same_bytes(tmp_path):
    notebook = write_notebook(tmp_path / "walk.ipynb", *CELLS)
    result = refresh(notebook)
    assert result.returncode == 0, result.stderr
    first = notebook.read_bytes()
    assert b'"said\\n"' in first and b"image/png" in first and b"IntSlider(value=3)" in first
    assert not any(word in first for word in (b"stderr", b"widget-view", b"model_id", b'"version": "3.', b"iopub"))
    time.sleep(1)  # a time stamp would show
    refresh(notebook)
    assert notebook.read_bytes() == first
    assert list(tmp_path.iterdir()) == [notebook]
    assert "3 passed" in compare(tmp_path)


def test_a_notebook_that_fails_keeps_its_file(tmp_path):
    bad = write_notebook(tmp_path / "bad.ipynb", "print('new')", "1 / 0")
    good = write_notebook(tmp_path / "good.ipynb", "print('new')")
    before = bad.read_bytes()
    result = refresh(bad, good)
    assert result.returncode == 1
    assert "bad.ipynb" in result.stderr and "ZeroDivisionError" in result.stderr
    assert bad.read_bytes() == before
    assert b'"new\\n"' in good.read_bytes()


def change_output(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_notebook_that_says_something_else_fails(tmp_path):
    notebook = write_notebook(tmp_path / "walk.ipynb", "print(6 * 7)", "print(6 * 7, hex(139640830016290), 3 / 2, 's')")
    refresh(notebook)
    change_output(notebook, "0x7f00aa11bb22 1.5 s", "0x7f00aa11bb33 9 ms")  # means nothing
    assert "2 passed" in compare(tmp_path)
    change_output(notebook, "42", "43")
    assert "2 failed" in compare(tmp_path)


# What tests/conftest.py promises


def test_annotations_are_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        squared_relu("no tensor")


def test_annotations_are_unchecked_on_request(unchecked_annotations):
    with pytest.raises(Exception) as caught:
        squared_relu("no tensor")
    assert not isinstance(caught.value, jaxtyping.TypeCheckError)


def test_tables_are_printed_from_all_workers(tmp_path):
    for name, error in (("a", 2.5e-7), ("b", 0.5)):
        row = {"case": name, "error": error}
        (tmp_path / f"test_{name}.py").write_text(f"def test(report_table): report_table('Parity', [{row}])")
    plugins = ["-p", "tests.tables", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", *plugins, tmp_path]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    table = printed.split(" Parity ")[1].splitlines()[1:4]
    assert [line.split() for line in table] == [["case", "error"], ["a", "2.5e-07"], ["b", "0.5"]]


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_missing_browser_fails_in_ci_and_skips_elsewhere(monkeypatch, ci, outcome):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="sudo apt-get install -y chromium"):
        find_chromium()
