"""benchmarks/gpu.py on a CPU: small, marked so, and with every field that its tables and the pages read."""
import json
import subprocess
import sys

import pytest

pytest.importorskip("accelerate", reason="training is tested with the train extra installed")


def found(root, out, *words): # what the command writes
    command = [sys.executable, root / "benchmarks" / "gpu.py", "--out", out, *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert rows["small"] is True and rows["device"] == "cpu" and "no figure of a GPU" in rows["note"]
    assert "small True, device cpu" in done.stdout
    return rows


def test_a_small_run(root, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = found(root, tmp_path / "gpu.json", "--sections", "peaks", "counted", "agreement", "speed", "kernels", "qrnn")
    assert not any("error" in row for name in ("peaks", "counted", "agreement", "speed", "qrnn") for row in rows[name])
    assert [row["batch"] for row in rows["speed"]] == [1, 8, 1]
    assert [row["optimiser"] for row in rows["speed"]] == ["adamw", "adamw", "muon"]
    for row in rows["speed"]:
        assert 0 < row["share_of_flops"] < 1 and 0 < row["share_of_bytes"] < 1 and row["pictures_per_second"] > 0
        assert "share_of_data_sheet_flops" not in row
    exact, low = rows["agreement"]
    assert exact["precision"] == "float32" and exact["agrees"] and low["agrees"] and 0 < low["gradients_differ"] < 0.05
    assert {"qrnn_ms", "lstm_ms", "ratio", "paper"} <= rows["qrnn"][0].keys()
    assert "only CUDA" in rows["kernels"][0]["left_out"]
    # three times the products of the forward pass, of a network that is said to need 1.15 GFLOP a picture of 64x64
    assert 2e8 < rows["counted"][0]["flops_a_picture"] / 3 < 4e8


def test_what_no_longer_fits_is_left_out(root, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    rows = found(root, tmp_path / "gpu.json", "--minutes", "0.0001", "--sections", "speed", "compiled")
    assert all("no time is left" in rows[name][-1]["left_out"] for name in ("speed", "compiled"))
    assert not any("milliseconds" in row for name in ("speed", "compiled") for row in rows[name])
