"""`./lab test --all`: which versions it takes, what it stores and what README.md says of it; nothing is installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tools import versions
from tools.versions import Environment

REPORT = '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10"/></testsuites>'
INSTALLED = {"python": "3.13.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "transformers": "5.23.0"}


@pytest.fixture
def machinery(tmp_path, monkeypatch):
    """A folder instead of the repository, where `commands` are recorded and not run.

    Each pytest exits with the next of `codes` and leaves the next of `reports`.
    """
    (tmp_path / "README.md").write_text("before\n<!-- versions -->\nold\n<!-- /versions -->\nafter\n")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((versions.ROOT / name).read_text())
    for name, path in {"ROOT": ".", "README": "README.md", "RESULTS": "versions.json"}.items():
        monkeypatch.setattr(versions, name, tmp_path / path)

    class Machinery:
        folder = tmp_path

        def __init__(self):
            self.commands = []
            self.codes = [1]
            self.reports = [REPORT]

        def run(self, command, **_):
            command = [str(part) for part in command]
            self.commands.append(command)
            if "venv" in command:
                Path(command[-1]).mkdir(exist_ok=True)
            code = 0
            if command[1:3] == ["-m", "pytest"]:
                code, report = self.codes.pop(0), self.reports.pop(0)
                Path(command[-1].removeprefix("--junit-xml=")).write_text(report)
            return subprocess.CompletedProcess(command, code, json.dumps(INSTALLED))

        def page(self):
            return (tmp_path / "README.md").read_text()

    machinery = Machinery()
    monkeypatch.setattr(versions.subprocess, "run", machinery.run)
    monkeypatch.setattr(versions, "find_python", lambda version: f"/python{version}" if version != "3.14" else None)
    return machinery


# Which versions


def test_the_lowest_versions_are_the_bounds():
    described = {
        "name": "lab",
        "dependencies": ["torch>=2.5", "typing_extensions>=4"],
        "optional-dependencies": {"a": ["torch>=2.10", "py.test-x>=1.0rc1"], "all": ["lab[a]"]},
    }
    assert versions.lower_bounds(described) == {"torch": "2.10", "typing_extensions": "4", "py.test-x": "1.0rc1"}
    described["optional-dependencies"]["a"] = ["numpy"]
    with pytest.raises(ValueError, match="'numpy'; write NAME>="):
        versions.lower_bounds(described)


def test_every_bound_of_the_project_is_one_that_can_be_tested():
    bounds = versions.lower_bounds(versions.project())
    assert {"torch", "jupyterlab", "pytest", "accelerate", "voila"} <= set(bounds)
    pins = Environment("lowest", "3.11").pins().splitlines()
    assert f"torch=={bounds['torch']}" in pins and len(pins) == len(bounds)
    assert Environment("3.13", "3.13").pins() == (versions.ROOT / "constraints.txt").read_text()


def test_without_names_all_but_this_python():
    own = "{}.{}".format(*sys.version_info[:2])
    chosen = versions.environments([])
    assert [one.name for one in chosen] == ["lowest", *(version for version in versions.PYTHONS if version != own)]
    assert chosen[0].python == "3.11"
    assert versions.environments(["3.13"]) == [Environment("3.13", "3.13")]


@pytest.mark.parametrize("present", [True, False])
def test_a_python_is_asked_where_it_is(tmp_path, monkeypatch, present):
    """As pyenv's programs do, this one runs only when it is told a version that it has."""
    program = tmp_path / "python3.13"
    program.write_text('#!/bin/sh\n[ "$PYENV_VERSION" = 3.13 ] && echo /somewhere/python\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("PYENV_VERSION", "3.11.7")
    if not present:
        program.write_text("#!/bin/sh\necho 'command not found' >&2; exit 127\n")
    assert versions.find_python("3.13") == ("/somewhere/python" if present else None)
    assert versions.find_python("3.9999") is None


# An environment


def test_an_environment_is_made_once(machinery):
    environment = Environment("3.13", "3.13")
    versions.install(environment, "/python3.13")
    versions.install(environment, "/python3.13")
    assert [command[2] for command in machinery.commands] == ["venv", "pip"]
    assert machinery.commands[1][-4:] == [
        "--constraint", str(environment.folder / "constraints.txt"), "--editable", ".[all]",
    ]  # fmt: skip
    pins = machinery.folder / "constraints.txt"
    assert (environment.folder / "constraints.txt").read_text() == pins.read_text()
    pins.write_text(pins.read_text().replace("einops==0.8.2", "einops==0.8.1"))
    versions.install(environment, "/python3.13")
    assert [command[2] for command in machinery.commands] == ["venv", "pip"] * 2


# A run


def test_a_run_is_counted_stored_and_shown(machinery, capsys):
    with pytest.raises(SystemExit, match="3.13 broken"):
        versions.main(["3.13"])
    assert "3.13: Python 3.13.0, torch 2.13.0, numpy 2.4.6, transformers 5.23.0: 4 passed, 3 failed, 3 skipped, in" in (
        capsys.readouterr().out
    )
    stored = json.loads((machinery.folder / "versions.json").read_text())
    assert {name: stored["3.13"][name] for name in ("passed", "failed", "skipped")} == {
        "passed": 4, "failed": 3, "skipped": 3,
    }  # fmt: skip
    assert stored["3.13"]["versions"] == INSTALLED and stored["3.13"]["machine"]["cores"] > 0
    page = machinery.page()
    assert page.startswith("before\n<!-- versions -->\n") and page.endswith("<!-- /versions -->\nafter\n")
    assert "Python 3.13.0, torch 2.13.0, numpy 2.4.6, transformers 5.23.0 | 4 | 3 | 3 |" in page


def test_runs_keep_those_of_other_environments(machinery):
    clean = REPORT.replace('errors="1" failures="2"', 'errors="0" failures="0"')
    machinery.reports = [REPORT, clean]
    machinery.codes = [1, 0]
    with pytest.raises(SystemExit, match="all: lowest broken"):
        versions.main(["lowest", "3.13"])  # the second runs all the same
    stored = json.loads((machinery.folder / "versions.json").read_text())
    assert [(name, run["failed"]) for name, run in stored.items()] == [("lowest", 3), ("3.13", 0)]
    machinery.codes = [0]
    machinery.reports = [clean]
    versions.main(["lowest"])
    assert {name: run["failed"] for name, run in versions.stored().items()} == {"lowest": 0, "3.13": 0}
    assert [line.split(":")[0] for line in machinery.page().splitlines() if line.startswith("| t")] == [
        "| the lowest that pyproject.toml promises", "| those of constraints.txt",
    ]  # fmt: skip


def test_pytest_that_does_not_come_to_its_tests_stores_nothing(machinery, capsys):
    machinery.codes = [4]
    with pytest.raises(SystemExit, match="3.12 broken"):
        versions.main(["3.12"])
    assert "3.12: broken, pytest stopped (4)" in capsys.readouterr().out
    assert versions.stored() == {} and "has not been run yet" in machinery.page()


def test_a_missing_python_is_said_and_breaks_only_when_named(machinery, capsys):
    assert versions.passes(Environment("3.14", "3.14"), [])
    assert "3.14: not run, as there is no python3.14 here" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="3.14 broken"):
        versions.main(["3.14"])
    with pytest.raises(SystemExit):
        versions.main(["loewst"])
    assert "there is no loewst; choose from lowest, 3.11" in capsys.readouterr().err
    assert machinery.commands == []


# What README.md says


def test_the_readme_says_what_was_stored():
    page = versions.README.read_text(encoding="utf-8")
    shown = re.search(r"<!-- versions -->\n\n(.*?)\n\n<!-- /versions -->", page, re.DOTALL)[1]
    assert shown == versions.table(versions.stored()), "python -m tools.versions --render"


def test_the_lowest_versions_that_were_run_are_those_promised():
    run = versions.stored().get("lowest")
    if run is None:
        pytest.skip("./lab test --all lowest has not been run yet")
    other = {
        name: (bound, run["versions"].get(name))
        for name, bound in versions.lower_bounds(versions.project()).items()
        if run["versions"].get(name) not in SpecifierSet(f"=={bound}")
    }
    assert other == {}, "promised, and run with: ./lab test --all lowest runs the tests with what is promised now"
