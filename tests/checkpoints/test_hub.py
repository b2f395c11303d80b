"""Hub ids: what is fetched and kept, and what is said when it cannot be had. The hub is a server in this process."""

import http.server
import json
import threading
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from tests.checkpoints.conftest import build

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as a download takes: one repository `owner/name` with one revision."""

    folder: Path
    sent: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        match self.path.split("?")[0].strip("/").split("/"):
            case ["api", "models", "owner", "name", "revision", "main"]:
                files = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
                self.answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": files}).encode())
            case ["api", "models", "owner", "name", "tree", _]:
                files = [
                    {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name}
                    for path in sorted(self.folder.iterdir())
                ]
                self.answer(json.dumps(files).encode())
            case ["api", "models", "owner", "name", "revision", _]:
                self.answer(b"{}", 404, {"X-Error-Code": "RevisionNotFound"})
            case ["api", "models", "owner", "other-token", *_]:
                self.answer(b"{}", 401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            case ["api", "models", "owner", "gated", *_]:
                self.answer(b"{}", 403, {"X-Error-Code": "GatedRepo"})
            case ["owner", "name", "resolve", _, name]:
                if self.command == "GET":
                    self.sent.append(name)
                headers = {"ETag": f'"{name}-1"', "X-Repo-Commit": COMMIT}
                self.answer((self.folder / name).read_bytes(), 200, headers)
            case _:
                self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, body: bytes, status: int = 200, headers: dict = {}):  # noqa: B006
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A repository's folder, the names of the files it sent, and a function that takes the hub off the net."""
    handler = type("Handler", (Hub,), {"folder": tmp_path / "repository", "sent": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    open_ = [True]

    def take_down():
        if open_:
            open_.clear()
            server.shutdown()
            server.server_close()

    yield handler.folder, handler.sent, take_down
    take_down()


@pytest.mark.parametrize("shard", ["5GB", 60_000], ids=["whole", "sharded"])
def test_download(served, shard):
    """Settings and safetensors are fetched, once, and nothing else; afterwards the net is not needed."""
    folder, sent, take_down = served
    model = build()
    model.save_pretrained(folder, max_shard_size=shard)
    wanted = sorted(path.name for path in folder.iterdir())
    for name in ("pytorch_model.bin", "README.md", "training.safetensors", "tf_model.h5"):
        (folder / name).write_bytes(b"not wanted")
    loaded = PersimmonForCausalLM.from_pretrained("owner/name")
    assert sorted(sent) == wanted
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    take_down()
    PersimmonForCausalLM.from_pretrained("owner/name", local_files_only=True)
    PersimmonForCausalLM.from_pretrained("owner/name")
    assert sorted(sent) == wanted


def test_pickled_weights_where_there_are_no_safetensors(served):
    folder, sent, _ = served
    model = build()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    loaded = PersimmonForCausalLM.from_pretrained("owner/name")
    assert sorted(sent) == ["config.json", "pytorch_model.bin"]
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)


def test_a_folder_wins_over_a_hub_id(served, tmp_path):
    build().save_pretrained(tmp_path / "owner" / "name")
    assert hub.resolve("owner/name") == Path("owner/name")
    assert served[1] == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("owner/other", {}, ["neither a folder nor on the hub", "owner/other"]),
        ("owner/gated", {}, ["accepted its terms", "owner/gated"]),
        ("owner/other-token", {}, ["owner/other-token", "and the hub did not give it", "Invalid credentials"]),
        ("owner/name", {"revision": "v2"}, ["no revision 'v2'"]),
        (
            "owner/name",
            {"local_files_only": True},
            ["neither a folder nor wholly in the hub's cache", "local_files_only"],
        ),
    ],
)
def test_what_the_hub_does_not_give(served, name, options, words):
    build().save_pretrained(served[0])
    with pytest.raises(CheckpointNotFoundError) as caught:
        PersimmonForCausalLM.from_pretrained(name, **options)
    assert all(word in str(caught.value) for word in words)


def test_offline(served):
    served[2]()
    with pytest.raises(CheckpointNotFoundError, match="no folder .*owner/name, and .* hub cannot be reached"):
        PersimmonForCausalLM.from_pretrained("owner/name")


@pytest.mark.parametrize("name", ["runs/../last", "a/b/c", "./missing", "/missing", "with space", "~/missing"])
def test_neither_a_folder_nor_an_id(served, name):
    with pytest.raises(CheckpointNotFoundError, match="neither a folder nor a hub id.*no folder /.*'owner/name'"):
        PersimmonForCausalLM.from_pretrained(name)


def test_a_file_is_no_folder(served, tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointNotFoundError, match=r"is a file; give the folder that holds config.json and the wei"):
        PersimmonForCausalLM.from_pretrained(tmp_path / "model.safetensors")


def test_a_tilde_is_the_home_folder(served, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    model = build()
    model.save_pretrained("~/owner/name")
    assert (tmp_path / "home" / "owner" / "name" / "model.safetensors").exists()
    assert torch.equal(PersimmonForCausalLM.from_pretrained("~/owner/name").lm_head.weight, model.lm_head.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_path_is_never_a_hub_id(served):
    with pytest.raises(CheckpointNotFoundError, match="neither a folder nor a hub id"):
        PersimmonForCausalLM.from_pretrained(Path("owner/name"))


def test_a_download_that_stopped_half_way(served):
    """Named by the hub's client where it keeps count of the files, and by us where it takes the snapshot as it is."""
    folder, _, take_down = served
    build().save_pretrained(folder, max_shard_size=60_000)
    snapshot = hub.resolve("owner/name")
    (snapshot / "model-00002-of-00012.safetensors").unlink()
    take_down()
    with pytest.raises(CheckpointError, match="wholly in the hub's cache|model-00002-of-00012.*stopped half-way"):
        PersimmonForCausalLM.from_pretrained("owner/name")
