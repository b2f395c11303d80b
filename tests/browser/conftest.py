"""JupyterLab and a real Chromium for the tests in this folder.

One JupyterLab server, one browser and one page, which loads JupyterLab once, serve the whole folder; each test gets it
empty, and a new one after a test that failed:

    def test_button(jupyter):
        jupyter.open(["import ipywidgets", "ipywidgets.Button(description='Go')"])  # cells, or the path of a notebook
        jupyter.run_all()                                    # returns when the last cell is done; fails when one failed
        jupyter.page.get_by_role("button", name="Go").click()          # `page` is Playwright's
        assert "done" in jupyter.outputs()[-1]                # the visible text of each code cell's output
        jupyter.write_into_cell("def answer(", "def answer(): ...")     # another source for the cell that begins so
        jupyter.answer("def answer(", "def answer(): return 1") # the same for an exercise, which must be marked right
        jupyter.screenshot("button")                          # screenshots/button.png, which git ignores

`jupyter.open_voila(...)` shows the same notebook as a page of Voila, run and without its code. A notebook given by its
path is copied, so that nothing a test does reaches the repository; its cells run with persimmon_lab importable.
`jupyter.open_excerpt(name, *starts)` opens those cells only of a notebook that a widget or an exercise needs.
Wait for what the page shows with Playwright's `expect(locator).to_contain_text(...)`, never by sleeping.
A test that fails leaves screenshots/<its name>.png and shows what the browser's console said.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
SCREENSHOTS = ROOT / "screenshots"
NOT_ANSWERED, RIGHT = "○ not answered yet", "✓ right"  # how a mark begins
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 120  # seconds until a server, a kernel or a page counts as stuck; a busy machine is slow, not broken
expect.set_options(timeout=PATIENCE * 1000)

WRITE_INTO_CELL = """([start, source]) => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets;
    const cell = cells.find(cell => cell.model.sharedModel.getSource().startsWith(start));
    cell.model.sharedModel.setSource(source);
}"""

# A browser of its own: no sandbox (CI runs as root), no traffic but to the server under test.
WIDTH, HEIGHT = 1280, 900  # of a page
DISPOSE_ALL = "() => { for (const widget of [...window.jupyterapp.shell.widgets('main')]) widget.dispose(); }"
DISPOSE_OTHERS = """() => {  // such as the launcher, which comes wherever nothing is open
    const { shell } = window.jupyterapp;
    for (const widget of [...shell.widgets("main")]) if (widget !== shell.currentWidget) widget.dispose();
}"""
IS_NO_LAB = """() => {  // no page yet, Voila's, or one with a question that waits for an answer
    const isLab = window.jupyterapp?.commands.hasCommand("docmanager:open");
    return !isLab || document.querySelector(".jp-Dialog") !== null;
}"""

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # render every cell, seen or not
    "docmanager-extension/plugin": {"autosave": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}


def find_chromium() -> str:
    """Path of a Chromium; where there is none CI fails and a developer's run skips."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing = "no Chromium was found; install it with: sudo apt-get install -y chromium"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    return path


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


class Server:
    """A JupyterLab (and Voila) server on a port of its own, with folders, settings and a token of its own."""

    def __init__(self, folder: Path):
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir()
        for name, settings in LAB_SETTINGS.items():
            file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | {
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "IPYTHONDIR": str(folder / "ipython"),
        }
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0",
                   "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={self.notebooks}", "--LabApp.news_url=None",
                   "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                   "--LabApp.expose_app_in_browser=True"]  # fmt: skip
        self.log = folder / "server.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        told = self.wait_for(lambda: json.loads((folder / "runtime" / f"jpserver-{self.process.pid}.json").read_text()))
        self.url, self.token = told["url"].rstrip("/"), told["token"]
        self.wait_for(lambda: socket.create_connection(("127.0.0.1", told["port"])).close())  # told before it listens

    def wait_for(self, something):
        """What `something` returns once it raises no more."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return something()
            except (OSError, json.JSONDecodeError):
                time.sleep(0.1)
        self.stop()
        pytest.fail(f"JupyterLab did not start:\n{self.log.read_text()}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


class Jupyter:
    """What a person at the browser does."""

    def __init__(self, server: Server, page: Page):
        self.server, self.page, self.console = server, page, []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))

    def command(self, name: str, **arguments):
        """One of JupyterLab's commands, by its id: surer than menus, which move while a busy page settles."""
        call = "([name, arguments]) => window.jupyterapp.commands.execute(name, arguments).then(() => null)"
        self.page.evaluate(call, [name, arguments])

    def place(self, notebook) -> str:
        """Put a notebook (itself, a path, or the sources of its cells) where the server sees it; return its name."""
        folder = self.server.notebooks
        name = f"{len(list(folder.iterdir())):03}.ipynb"
        if isinstance(notebook, NotebookNode):
            nbformat.write(notebook, folder / name)
        elif isinstance(notebook, (str, Path)):
            shutil.copy(notebook, folder / name)
        else:
            cells = [nbformat.v4.new_code_cell(source) for source in notebook]
            kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / name)
        return name

    def open(self, notebook) -> None:
        """In JupyterLab, alone."""
        name = self.place(notebook)
        if self.page.evaluate(IS_NO_LAB):
            self.page.goto(f"{self.server.url}/lab?reset&token={self.server.token}")
            self.page.wait_for_function("window.jupyterapp !== undefined")
            self.page.evaluate("window.jupyterapp.restored.then(() => null)")
        self.command("docmanager:open", path=name, factory="Notebook")
        self.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        self.page.evaluate(DISPOSE_OTHERS)

    def open_excerpt(self, name: str, *starts: str) -> None:
        """A notebook's first cell, those that import its checks and those that begin so; an exercise with its mark.

        nbval runs each notebook as a whole. What a browser adds, a widget that answers and a reader's own answer that
        is marked, needs a few of its cells: seconds, where the whole takes half a minute. A cell too few is an error.
        """
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        chosen = {0, *(i for i, cell in enumerate(cells) if cell.source.startswith("from persimmon_lab.checks"))}
        for start in starts:
            (found,) = (i for i, cell in enumerate(cells) if cell.source.startswith(start))
            chosen |= {found, found + 1} if "exercise" in cells[found].metadata.get("tags", ()) else {found}
        notebook.cells = [cells[i] for i in sorted(chosen)]
        self.open(notebook)

    def run_all(self) -> None:
        self.command("notebook:run-all-cells")
        self.wait_until_idle()
        cells = self.page.evaluate("window.jupyterapp.shell.currentWidget.model.toJSON().cells")
        said = [output for cell in cells for output in cell.get("outputs", ())]
        assert not [f"{output.ename}: {output.evalue}" for output in map(NotebookNode, said) if "ename" in output]

    def write_into_cell(self, start: str, source: str) -> None:
        """Replace the source of the first cell that begins with `start`."""
        self.page.evaluate(WRITE_INTO_CELL, [start, source])

    def answer(self, start: str, source: str) -> None:
        """An exercise is open, is answered as a reader answers it, and all cells run once more: now it is right."""
        assert self.marks() == [NOT_ANSWERED]
        self.write_into_cell(start, source)
        self.run_all()
        assert self.marks() == [RIGHT]

    def marks(self) -> list[str]:
        """What the checks say, in the order of the notebook."""
        return [mark for output in self.outputs() for mark in (NOT_ANSWERED, RIGHT) if mark in output]

    def wait_until_idle(self) -> None:
        """Until the kernel has done all that was asked of it."""
        self.page.wait_for_function(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'"
        )

    def outputs(self) -> list[str]:
        """The visible text below each code cell."""
        return [cell.inner_text() for cell in self.page.locator(".jp-CodeCell .jp-Cell-outputArea").all()]

    def open_voila(self, notebook) -> None:
        name = self.place(notebook)
        self.page.goto(f"{self.server.url}/voila/render/{name}?token={self.server.token}")
        self.page.wait_for_function(
            "document.body.innerText.includes('There was an error when executing cell') ||"
            "!document.querySelector('#loading')?.checkVisibility()"
        )
        assert "There was an error when executing cell" not in self.page.inner_text("body")

    def shut_down_kernels(self) -> None:
        """JupyterLab's and Voila's; each holds hundreds of megabytes."""
        kernels, token = f"{self.server.url}/api/kernels", {"Authorization": f"token {self.server.token}"}
        for kernel in self.page.request.get(kernels, headers=token).json():
            self.page.request.delete(f"{kernels}/{kernel['id']}", headers=token)

    def clear(self) -> None:
        """Leave JupyterLab as the next test expects it: nothing open, the page's size and its media the usual ones."""
        self.page.evaluate(DISPOSE_ALL)
        self.shut_down_kernels()
        self.page.unroute_all()
        self.page.emulate_media(media="screen", forced_colors="none", reduced_motion="no-preference")
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        self.console.clear()

    def screenshot(self, name: str, **options) -> Path:
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path, **options)
        return path


class Tab:
    """The page that tests hand on to each other, for as long as none of them fails."""

    def __init__(self, browser: Browser, server: Server):
        self.browser, self.server = browser, server
        self.jupyter: Jupyter | None = None

    def open(self) -> Jupyter:
        if self.jupyter is None:
            context = self.browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            self.jupyter = Jupyter(self.server, context.new_page())
        return self.jupyter

    def close(self) -> None:
        if self.jupyter is not None:
            self.jupyter.shut_down_kernels()
            self.jupyter.page.context.close()
        self.jupyter = None


@pytest.fixture(scope="session")
def tab(browser, server):
    tab = Tab(browser, server)
    yield tab
    tab.close()


@pytest.fixture
def jupyter(tab, request):
    jupyter = tab.open()
    yield jupyter
    if request.node.stash.get(FAILED, False):
        path = jupyter.screenshot(request.node.name.replace("/", "-"))
        print(f"The page when the test failed: {path}\nIts console:", *jupyter.console, sep="\n")
        tab.close()
    elif jupyter.page.evaluate(IS_NO_LAB):
        tab.close()
    else:
        jupyter.clear()


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report
