"""The tests with other versions than those of .venv: what `./lab test --all` adds to an everyday run.

    python -m tools.versions [names]     lowest, 3.12, 3.13 ...; without a name, all that this machine can make
    python -m tools.versions --render    only write README.md's table, from what was stored

`lowest` is the lowest Python that pyproject.toml promises, with the lowest version of every package; a number is that
Python with the versions of constraints.txt. Each has an environment of its own, `.venv-lowest` and so on, which the
first run makes and later ones keep for as long as what it holds is what is wanted. In each run the tests without those
in a browser; notebooks are compared in .venv alone, whose versions wrote their outputs. To look into a failure:
`.venv-lowest/bin/python -m pytest tests/...`.

A run's outcome, date, versions and machine replace its last ones in benchmarks/results/versions.json.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

from packaging.version import Version

from benchmarks.machine import machine, store
from benchmarks.table import insert

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results" / "versions.json"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOWEST = "lowest"
SHOWN = ("torch", "numpy", "transformers")  # the packages whose versions README.md's table shows
TESTS = ("-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", "--ignore=tests/browser", "tests")
VERSIONS = """
import json, platform, sys
from importlib.metadata import version
print(json.dumps({"python": platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))
"""


# What is promised


def project() -> dict:
    """pyproject.toml's own part."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bounds(described: dict) -> dict[str, str]:
    """Package -> the lowest version that all of the dependencies and extras allow.

    Raises ValueError for a requirement that is not NAME>=VERSION.
    """
    groups = [described["dependencies"], *described["optional-dependencies"].values()]
    bounds: dict[str, str] = {}
    for requirement in (line for group in groups for line in group):
        if requirement.startswith(f"{described['name']}["):  # an extra made of extras
            continue
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
        if match is None:
            raise ValueError(f"pyproject.toml asks for {requirement!r}; write NAME>=VERSION, so that it can be tested")
        name, version = match.groups()
        bounds[name] = max(bounds.get(name, version), version, key=Version)
    return bounds


def lowest_python(described: dict) -> str:
    """ "3.11" for ">=3.11"."""
    return described["requires-python"].removeprefix(">=")


# An environment


@dataclass(frozen=True)
class Environment:
    """Where the tests run: its name, and the Python that it is made with, such as "3.13"."""

    name: str
    python: str

    @property
    def folder(self) -> Path:
        return ROOT / f".venv-{self.name}"

    @property
    def executable(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def pins(self) -> str:
        """The versions that it holds, as pip's constraints."""
        if self.name != LOWEST:
            return (ROOT / "constraints.txt").read_text(encoding="utf-8")
        return "".join(f"{name}=={version}\n" for name, version in lower_bounds(project()).items())


def find_python(version: str) -> str | None:
    """The path of the Python of that version, such as "3.13"; None where there is none.

    A program of that name is asked, as it may be one of pyenv's, which runs a Python only when told to.
    """
    command = shutil.which(f"python{version}")
    if command is None:
        return None
    question = [command, "-c", "import sys; print(sys.executable)"]
    variables = os.environ | {"PYENV_VERSION": version}
    answer = subprocess.run(question, capture_output=True, text=True, env=variables)
    return answer.stdout.strip() if answer.returncode == 0 else None


def install(environment: Environment, interpreter: str) -> None:
    """Make the environment, unless it holds already what is wanted; one that was cut short is made anew."""
    stamp = environment.folder / "lab-stamp"
    described = project()
    wanted = json.dumps(
        [interpreter, environment.pins(), described["dependencies"], described["optional-dependencies"]]
    )
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    print(f"{environment.name}: making {environment.folder} (minutes)", flush=True)
    subprocess.run([interpreter, "-m", "venv", "--clear", environment.folder], check=True)
    constraints = environment.folder / "constraints.txt"
    constraints.write_text(environment.pins(), encoding="utf-8")
    pip = [environment.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", constraints, "--editable", ".[all]"], cwd=ROOT, check=True)
    stamp.write_text(wanted, encoding="utf-8")


def installed(environment: Environment) -> dict[str, str]:
    """Package -> version in the environment, and `python`."""
    command = [environment.executable, "-c", VERSIONS, *lower_bounds(project())]
    versions: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return versions


# A run


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, from pytest's report in JUnit's format."""
    suite = ElementTree.parse(report).getroot()[0]
    number = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = number["failures"] + number["errors"]
    return {"passed": number["tests"] - failed - number["skipped"], "failed": failed, "skipped": number["skipped"]}


def run_tests(environment: Environment) -> dict:
    """The outcome, the versions and the machine. Raises RuntimeError when pytest did not come as far as a report."""
    place = {name: value for name, value in machine(()).items() if name != "python"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # jaxtyping changes what it compiles, and another version of it would take that for its own
        variables = os.environ | {"PYTHONPYCACHEPREFIX": str(environment.folder / "pycache")}
        command = [environment.executable, "-m", "pytest", *TESTS, f"--junit-xml={report}"]
        code = subprocess.run(command, cwd=ROOT, env=variables).returncode
        if code not in (0, 1) or not report.exists():
            raise RuntimeError(f"pytest stopped ({code}) before it had run the tests")
        outcome = counts(report)
    seconds = round(time.monotonic() - started)
    today = date.today().isoformat()
    return {"date": today, **outcome, "seconds": seconds, "versions": installed(environment), "machine": place}


def told(versions: dict[str, str]) -> str:
    """ "Python 3.13.0, torch 2.13.0, numpy 2.4.6, transformers 5.23.0"."""
    return ", ".join([f"Python {versions['python']}", *(f"{name} {versions[name].split('+')[0]}" for name in SHOWN)])


# What was found


def stored() -> dict[str, dict]:
    """The last run of each environment, by its name."""
    runs: dict[str, dict] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return runs


def table(runs: dict[str, dict]) -> str:
    """The runs as README.md shows them, the lowest versions first."""
    if not runs:
        return "`./lab test --all` has not been run yet."
    lines = ["| versions | passed | failed | skipped | when and where |", "|---|---|---|---|---|"]
    for name in [LOWEST, *PYTHONS]:
        if name not in runs:
            continue
        run = runs[name]
        kind = "the lowest that pyproject.toml promises" if name == LOWEST else "those of constraints.txt"
        day = date.fromisoformat(run["date"])
        where = f"{day.day} {day:%B %Y}, {run['machine']['cores']} cores of {run['machine']['cpu']}"
        numbers = [f"{run[outcome]:,}" for outcome in ("passed", "failed", "skipped")]
        lines.append(f"| {' | '.join([kind + ': ' + told(run['versions']), *numbers, where])} |")
    return "\n".join(lines)


def render() -> None:
    """Write the table into README.md, between its markers `versions`."""
    if not insert(README, "versions", table(stored())):
        sys.exit(f"{README} has no place for the table: <!-- versions --> … <!-- /versions -->")


def environments(names: list[str]) -> list[Environment]:
    """Those named; without a name, the lowest versions and every Python but the one that runs this."""
    own = "{}.{}".format(*sys.version_info[:2])
    chosen = names or [LOWEST, *(version for version in PYTHONS if version != own)]
    return [Environment(name, lowest_python(project()) if name == LOWEST else name) for name in chosen]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="./lab test --all", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {LOWEST}, {', '.join(PYTHONS)}")
    parser.add_argument("--render", action="store_true", help="only write README.md's table")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in (LOWEST, *PYTHONS)]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; choose from {LOWEST}, {', '.join(PYTHONS)}")
    if options.render:
        render()
        return
    broken = [one.name for one in environments(options.names) if not passes(one, options.names)]
    render()
    if broken:
        sys.exit(f"./lab test --all: {', '.join(broken)} broken")


def passes(environment: Environment, named: list[str]) -> bool:
    """Run the tests there, store the outcome and say it in a line. A Python that is not here breaks only if named."""
    interpreter = find_python(environment.python)
    if interpreter is None:
        print(f"{environment.name}: not run, as there is no python{environment.python} here", flush=True)
        return environment.name not in named
    try:
        install(environment, interpreter)
        run = run_tests(environment)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{environment.name}: broken, {error}", flush=True)
        return False
    store(RESULTS, stored() | {environment.name: run})
    outcome = ", ".join(f"{run[name]} {name}" for name in ("passed", "failed", "skipped"))
    print(f"{environment.name}: {told(run['versions'])}: {outcome}, in {run['seconds'] / 60:.0f} minutes", flush=True)
    return not run["failed"]


if __name__ == "__main__":
    main(sys.argv[1:])
