"""Run notebooks and store their outputs: what `./lab refresh` does.

The stored file depends on the notebook and the code alone: no times, no warnings, no widget state (its ids are random),
no Python version. Refreshing twice gives the same bytes. A notebook that fails keeps its old file.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from persimmon_lab.atomic import write_atomically

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CELL_SECONDS = 300  # as long as the tests allow a cell
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook after running all its cells in its own folder, in this environment's kernel."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.kernelspec = KERNEL
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        coalesce_streams=True,
    )
    return client.execute(stderr=subprocess.DEVNULL)  # where the kernel, not the notebook, says things


def keep_what_repeats(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between two runs without meaning anything."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)  # leaves the widget's repr, which a page can show without it
                output.get("metadata", {}).pop(WIDGET, None)
    return notebook


def store(notebook: nbformat.NotebookNode, path: Path) -> None:
    """All of it or nothing."""
    write_atomically(path, (nbformat.writes(notebook) + "\n").encode("utf-8"))


def refresh(path: Path) -> bool:
    start = time.monotonic()
    try:
        notebook = execute(path)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{path.name}: kept as it was, because it does not run\n{error}", file=sys.stderr, flush=True)
        return False
    store(keep_what_repeats(notebook), path)
    print(f"{path.name}: {time.monotonic() - start:.0f} s", flush=True)
    return True


def main(arguments: list[str]) -> int:
    paths = [Path(argument).resolve() for argument in arguments] or sorted(NOTEBOOKS.glob("*.ipynb"))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        print(f"no such notebook: {', '.join(map(str, missing))}", file=sys.stderr)
        return 2
    os.environ.pop("MPLBACKEND", None)  # figures belong in the notebook
    failed = [path.name for path in paths if not refresh(path)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
