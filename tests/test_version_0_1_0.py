"""Weights that version 0.1.0 saved, tiny ones of each head, still load and still say the same."""
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from my3yearold.saving import load_model
from my3yearold.scenes import scenes

# written by commit dc7bad2; values of random weights, 32 levels, 16x16
FOLDER = Path(__file__).parent / "version_0_1_0"
HEADS = ("adaptive", "neighbours", "smooth", "mixture", "free")


@pytest.mark.parametrize("head", HEADS)
def test_weights_of_version_0_1_0_load(head):
    model, vocabulary, card = load_model(FOLDER / head)
    data = scenes(2, 16, seed=0)
    ids, lengths = vocabulary.encode([captions[0] for captions in data.captions])
    torch.manual_seed(0)
    given = torch.rand(2, 3, 16, 16) < 0.5
    with torch.no_grad(): logits = model(data.images // 8, given, ids, lengths, ~given)[:200]
    assert card["seed"] == 1
    torch.testing.assert_close(logits, load_file(FOLDER / "expected.safetensors")[head], atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1                       # the weights are not so small that anything would pass
