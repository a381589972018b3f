"""Graphs say what PyTorch says: on one scene and on one photograph, with onnxruntime."""
import hashlib
import json

import numpy as np
import pytest
import torch

for module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module, reason=f"graphs are written where {module} is installed (the extra export)")

import onnxruntime

from my3yearold.data import sample_photos
from my3yearold.export import WORDS, Step, export, rounded
from my3yearold.inpaint import Inpainter
from my3yearold.saving import bundled_weights, load_model
from my3yearold.scenes import scenes


def session(graph): # bytes or a path
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options)


def by_graph(sess, inputs): return sess.run(None, {name: np.asarray(x) for name, x in inputs.items()})


def question(pipe, image, caption, k, scale, several=2): # what a step is asked, by name
    given = torch.ones(1, 3, 64, 64, dtype=torch.bool)
    given[..., 16:48, 20:52] = False
    chance = torch.Generator().manual_seed(k)
    ids, lengths = pipe.vocabulary.encode([caption, ""][:several])
    with torch.no_grad(): states = pipe.model.read(torch.nn.functional.pad(ids, (0, WORDS - ids.shape[1])), lengths)
    hole = (~given)[0, 0].flatten().nonzero()[:, 0]
    pixels = torch.stack([hole[torch.randperm(len(hole), generator=chance)[:k]] for _ in range(3)])
    return dict(
        images=image * given, given=given, states=states, lengths=lengths.int(), scale=torch.tensor(scale),
        central=torch.tensor(0.7).double(), pixels=pixels.int(),
        uniforms=torch.rand(3, k, dtype=torch.float64, generator=chance))


def same_draws(sess, model, asked):
    with torch.no_grad(): values, log_prob = Step(model)(**asked)
    found, found_log_prob = by_graph(sess, asked)
    assert found.dtype == np.uint8 and found.shape == tuple(asked["pixels"].shape)
    equal = found == values.numpy()
    assert equal.mean() > 0.99 and np.abs(found.astype(int) - values.numpy()).max() <= 2
    assert np.abs(found_log_prob - log_prob.numpy())[equal].max() < 2e-3


def test_a_scene(graphs):
    pipe, place = Inpainter.from_pretrained("scenes"), graphs / "scenes"
    read, step = session(place / "read.onnx"), session(place / "step.onnx")
    made = scenes(1, seed=31)
    for k, scale, several in ((900, 3.0, 2), (1, 3.0, 2), (250, 0.5, 2), (250, 1.0, 1)):
        asked = question(pipe, made.images, made.captions[0][0], k, scale, several)
        ids, lengths = pipe.vocabulary.encode([made.captions[0][0], ""][:several])
        ids = torch.nn.functional.pad(ids, (0, WORDS - ids.shape[1]))
        states = [by_graph(read, dict(ids=i[None].int(), lengths=n[None].int()))[0] for i, n in zip(ids, lengths)]
        for row, expected, n in zip(np.concatenate(states), asked["states"].numpy(), lengths):
            assert np.abs(row - expected)[:n].max(initial=0) < 1e-5
        same_draws(step, pipe.model, asked)


def test_a_photograph(graphs):
    pipe, made = Inpainter.from_pretrained("photos"), sample_photos()
    step = session(graphs / "photos" / "step.onnx")
    assert (graphs / "photos" / "step.onnx").stat().st_size < 5e6
    same_draws(step, pipe.model, question(pipe, made.images[:1], made.captions[0][0], 400, 2.0))
    same_draws(step, pipe.model, question(pipe, made.images[1:2], made.captions[1][0], 77, 1.0, 1))


def test_the_folder_describes_itself(graphs):
    place = graphs / "scenes"
    manifest = json.loads((place / "manifest.json").read_text())
    assert set(manifest["files"]) == {"read.onnx", "step.onnx", "vocabulary.json", "card.json"}
    for name, file in manifest["files"].items():
        content = (place / name).read_bytes()
        assert len(content) == file["bytes"] and hashlib.sha256(content).hexdigest() == file["sha256"]
    pipe = Inpainter.from_pretrained("scenes")
    assert manifest["guidance_scale"] == pipe.guidance_scale and manifest["words"] == WORDS
    assert json.loads((place / "vocabulary.json").read_text()) == json.loads(pipe.vocabulary.to_json())


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not made by this program"): export("scenes", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_weights_are_rounded():
    model = load_model(bundled_weights()["scenes"])[0]
    tables = {name: table.clone() for name, table in model.named_buffers()}
    with torch.no_grad():
        for weight in model.parameters(): weight.add_(1e-5)
    rounded(model)
    assert all((weight == weight.half().float()).all() for weight in model.parameters())
    assert tables and all((tables[name] == table).all() for name, table in model.named_buffers())


def test_the_command(tmp_path, monkeypatch, capsys):
    from my3yearold.cli import main
    monkeypatch.setattr("my3yearold.export.graphs_of", lambda model: iter(())) # the graphs themselves: above
    assert main(["export", "scenes", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "out" / "manifest.json").read_text()) and said["precision"] == "half"
    assert main(["export", "scenes", str(tmp_path / "out"), "--precision", "single"]) == 0  # over its own
    assert "vocabulary.json" in capsys.readouterr().out
    assert main(["export", "nowhere", str(tmp_path / "other")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and not (tmp_path / "other").exists()


def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch, capsys):
    import sys

    from my3yearold.cli import main
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "scenes", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert 'pip install "my3yearold[export]"' in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
