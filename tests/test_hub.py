"The Hub: cards whose header YAML reads; weights sent to, and fetched from, a stand-in that speaks its protocol."
import base64
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from my3yearold.hub import header, model_card
from my3yearold.inpaint import Inpainter
from my3yearold.saving import bundled_weights, weights_folder

ROOT = Path(__file__).parents[1]
needs_library = pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"),
                                   reason="huggingface_hub is not installed")


class Hub(BaseHTTPRequestHandler):
    "Repositories in memory: name -> list of (commit, {path: bytes}), the newest last."
    repos: dict[str, list] = {}
    asked: list[str] = []
    protocol_version = "HTTP/1.1"

    def log_message(self, *_): pass

    def answer(self, value=None, status=200, content=None, **headers):
        content = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in {"Content-Length": len(content), "Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), str(text))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(content)

    def body(self): return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def missing(self, code): self.answer(dict(error=code), 404, X_Error_Code=code)

    def commit_of(self, repo, revision): # -> (commit, files), or None
        commits = [] if repo is None else repo
        if revision in ("main", None): return commits[-1] if commits else None
        return next((found for found in commits if found[0] == revision), None)

    def do_POST(self):
        Hub.asked.append(self.path)
        body = self.body()
        if self.headers.get("Authorization") != "Bearer right": return self.answer(dict(error="Invalid token."), 401)
        if self.path == "/api/repos/create":
            given = json.loads(body)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            found = dict(url=f"http://{self.headers['Host']}/{name}", name=name, id="1")
            if name in Hub.repos: return self.answer(found | dict(error="it is there already"), 409)
            Hub.repos[name] = [("0" * 40, {})]
            return self.answer(found)
        if self.path == "/api/validate-yaml": return self.answer(dict(errors=[], warnings=[]))
        name, what = re.match(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path).groups()
        if what == "preupload":
            files = [dict(path=f["path"], uploadMode="regular", shouldIgnore=False) for f in json.loads(body)["files"]]
            return self.answer(dict(files=files))
        lines = [json.loads(line) for line in body.splitlines()]
        new = {line["value"]["path"]: base64.b64decode(line["value"]["content"])
               for line in lines if line["key"] == "file"}
        commit = hashlib.sha1(body).hexdigest()
        Hub.repos[name].append((commit, Hub.repos[name][-1][1] | new))
        address = f"http://{self.headers['Host']}/{name}/commit/{commit}"
        self.answer(dict(success=True, commitOid=commit, commitUrl=address))

    def do_GET(self):
        Hub.asked.append(self.path)
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            name, what, revision = found.groups()
            if name not in Hub.repos: return self.missing("RepoNotFound")
            if (held := self.commit_of(Hub.repos[name], revision)) is None: return self.missing("RevisionNotFound")
            commit, files = held
            if what == "tree":
                return self.answer([dict(type="file", path=p, size=len(b), oid=hashlib.sha1(b).hexdigest())
                                    for p, b in files.items()])
            return self.answer(dict(id=name, modelId=name, sha=commit, private=False, tags=[], downloads=0, likes=0,
                                    siblings=[dict(rfilename=p) for p in files]))
        name, revision, file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path).groups()
        held = self.commit_of(Hub.repos.get(name), revision)
        if held is None: return self.missing("RevisionNotFound" if name in Hub.repos else "RepoNotFound")
        if file not in held[1]: return self.missing("EntryNotFound")
        content = held[1][file]
        self.answer(content=content, X_Repo_Commit=held[0], ETag=f'"{hashlib.sha1(content).hexdigest()}"',
                    Content_Type="application/octet-stream", Accept_Ranges="bytes")

    do_HEAD = do_GET


@pytest.fixture
def hub():
    "The address of a stand-in."
    Hub.repos, Hub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(script, hub, home, *args):
    "A process of its own, since the library reads its settings once."
    environment = os.environ | dict(HF_ENDPOINT=hub, HF_HOME=str(home), HF_HUB_DISABLE_XET="1", PYTHONPATH=str(ROOT),
                                    HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        environment.pop(name, None)
    return subprocess.run([sys.executable, "-c", script, *map(str, args)], env=environment, text=True,
                          capture_output=True, timeout=300)


SEND = """
import sys
from my3yearold.inpaint import Inpainter
print(Inpainter.from_pretrained("scenes").push_to_hub("somebody/scenes", token=sys.argv[1], message=sys.argv[2]))
"""
FETCH = """
import sys
from my3yearold.inpaint import Inpainter
pipe = Inpainter.from_pretrained(*sys.argv[1:2], revision=sys.argv[2] if len(sys.argv) > 2 else None)
print(len(pipe.vocabulary), pipe.guidance_scale, sum(p.double().sum().item() for p in pipe.model.parameters()))
"""


@needs_library
def test_weights_are_sent_fetched_and_found_again_without_a_network(hub, tmp_path):
    first = run(SEND, hub, tmp_path / "a", "right", "one")
    assert first.returncode == 0, first.stderr
    assert re.search(r"somebody/scenes/commit/[0-9a-f]{40}", first.stdout)
    second = run(SEND, hub, tmp_path / "a", "right", "two")
    assert second.returncode == 0, second.stderr
    commits = Hub.repos["somebody/scenes"]
    assert len(commits) == 3 and commits[1][0] != commits[2][0]
    assert sorted(commits[-1][1]) == ["README.md", "card.json", "config.json", "model.safetensors", "vocabulary.json"]
    assert commits[-1][1]["model.safetensors"] == (bundled_weights()["scenes"] / "model.safetensors").read_bytes()

    pipe = Inpainter.from_pretrained("scenes")
    total = sum(p.double().sum().item() for p in pipe.model.parameters())
    here = f"{len(pipe.vocabulary)} {pipe.guidance_scale} {total}"
    for revision in ([], ["main"], [commits[1][0]]):
        fetched = run(FETCH, hub, tmp_path / "b", "somebody/scenes", *revision)
        assert fetched.returncode == 0, fetched.stderr
        assert fetched.stdout.strip() == here
    nobody = "http://127.0.0.1:9"                                          # nothing listens there
    assert run(FETCH, nobody, tmp_path / "b", "somebody/scenes").stdout.strip() == here
    asked = len(Hub.asked)
    assert run(FETCH, hub, tmp_path / "b", "somebody/scenes", commits[1][0]).returncode == 0
    assert not any("model.safetensors" in path for path in Hub.asked[asked:]), "fetched again"


@needs_library
@pytest.mark.parametrize("script, args, words", [
    (SEND, ("wrong", "one"), "ValueError: the Hugging Face Hub did not take 'somebody/scenes' \\(.*401"),
    (FETCH, ("nobody/nothing",), "FileNotFoundError: 'nobody/nothing' is neither a folder nor weights .*Repository"),
    (FETCH, ("somebody/scenes", "v9"), "did not give 'somebody/scenes' at 'v9' \\(RevisionNotFound"),
])
def test_failures_are_one_sentence(hub, tmp_path, script, args, words):
    Hub.repos["somebody/scenes"] = [("0" * 40, {})]
    found = run(script, hub, tmp_path, *args)
    assert found.returncode != 0
    assert re.search(words, found.stderr.strip().splitlines()[-1])


def test_a_revision_of_what_has_none():
    with pytest.raises(ValueError, match="revision 'v2' is for weights on the Hugging Face Hub, and 'scenes' is here"):
        weights_folder("scenes", "v2")


def test_weights_written_and_read_again(tmp_path):
    pipe = Inpainter.from_pretrained("scenes")
    folder = pipe.save_pretrained(tmp_path / "mine")
    again = Inpainter.from_pretrained(folder)
    assert (folder / "model.safetensors").read_bytes() == (weights_folder("scenes") / "model.safetensors").read_bytes()
    assert again.guidance_scale == pipe.guidance_scale and again.readme == pipe.readme and again.card == pipe.card
    again.guidance_scale = 2.0
    assert Inpainter.from_pretrained(again.save_pretrained(folder)).guidance_scale == 2.0   # ours: replaced
    (tmp_path / "empty").mkdir()
    pipe.save_pretrained(tmp_path / "empty")


@pytest.mark.parametrize("name", ["diary.txt", "README.md", "config.json"])
def test_no_file_of_anybody_else_is_written_over(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="is in the way"):
        Inpainter.from_pretrained("scenes").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("card", [
    {}, {"config": {}}, {"config": {"data": "scenes"}, "valid": 3.81234, "valid_centre": "none"},
    {"config": {"data": ["a: b", 'c"d', "# e\n---"], "start": "x"}, "valid": 1.0, "minutes": 2.5, "pictures": 12},
])
def test_the_header_is_yaml_whatever_the_card_holds(card):
    yaml = pytest.importorskip("yaml")
    text = model_card("somebody/'thing'", card)
    _, head, _ = re.split("^---$", text, maxsplit=2, flags=re.M)
    found = yaml.safe_load(head)
    assert found["library_name"] == "my3yearold" and found["pipeline_tag"] == "image-to-image"
    metrics = [m for result in found.get("model-index", []) for r in result["results"] for m in r["metrics"]]
    assert [m["value"] for m in metrics] == ([round(card["valid"], 4)] if "valid" in card else [])


@pytest.mark.parametrize("name", bundled_weights())
def test_bundled_cards_have_a_header_with_licence_data_and_tags(name):
    yaml = pytest.importorskip("yaml")
    text = (bundled_weights()[name] / "README.md").read_text()
    assert text.startswith("---\n")
    found = yaml.safe_load(text.split("---\n")[1])
    assert found["license"] and found["tags"] and found["language"] == "en"
    figures = json.loads((bundled_weights()[name] / "figures.json").read_text())
    for result in found["model-index"][0]["results"]:
        measured = figures.get(result["dataset"]["name"], figures)
        assert result["metrics"][0]["value"] == round(measured["whole"]["mean"], 3)


def test_the_hub_reads_what_we_write():
    cards = pytest.importorskip("huggingface_hub").ModelCard
    for name, folder in bundled_weights().items():
        card = cards((folder / "README.md").read_text())
        assert card.data.library_name == "my3yearold" and card.data.eval_results
    assert cards(header("x", {"config": {"data": "scenes"}, "valid": 3.5})).data.eval_results[0].metric_value == 3.5
