"""Sources by any name, what tells data apart, and streams of random numbers that nothing shares."""
import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given as forall, settings, strategies as st
from PIL import Image

from my3yearold.chance import stream
from my3yearold.batches import Examples, deal, decide, questions
from my3yearold.captions import Vocabulary
from my3yearold.data import CaptionedImages, identity, load_data, sources_named
from my3yearold.masks import MASKS
from my3yearold.training import TrainConfig

CPU = torch.device("cpu")
BOXED = Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), CPU)
UNBOXED = Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), CPU)
UNBOXED.boxes = None


def folder_of_pictures(folder, n=20):
    folder.mkdir(parents=True)
    for i in range(n): Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i:02}.png")
    (folder / "captions.json").write_text(json.dumps({f"{i:02}": ["a red ring"] for i in range(n)}))
    return folder


# ---- sources ----

def test_a_comma_in_a_path_does_not_split_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_pictures(tmp_path / "red, blue")
    assert sources_named("red, blue") == ("red, blue",) and TrainConfig(data="red, blue").data == ("red, blue",)
    assert len(load_data("red, blue", "train", 16)) == 19
    assert sources_named("scenes, elsewhere") == ("scenes", "elsewhere")         # as in version 0.1.0
    both = load_data(("scenes", tmp_path / "red, blue"), "valid", 16, 5)
    assert len(both) == 6 and both.names[-1] == "19" and both.captions[-1] == ["a red ring"]


@pytest.mark.parametrize("named, kind, words", [
    (3, TypeError, "3 names no data"), (["scenes", 3], TypeError, "names no data"), (None, TypeError, "names no data"),
    ([], ValueError, "no data is named"), ("", FileNotFoundError, "there is no ''"),
    ("scenes,", FileNotFoundError, "there is no ''"), ("nowhere", FileNotFoundError, "there is no 'nowhere'")], ids=str)
def test_what_names_no_data_is_told(named, kind, words):
    with pytest.raises(kind, match=words): load_data(named, "train", 16, 4)


# ---- what tells data apart ----

def some_data(n=300):
    images = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return CaptionedImages(images, [[f"picture {i}", "again"] for i in range(n)], [str(i) for i in range(n)])


def changed(data, other): return [what for what in identity(data) if identity(data)[what] != identity(other)[what]]


def test_identity_tells_what_has_changed():
    data = some_data()
    assert changed(data, some_data()) == []
    assert changed(data, replace(data, captions=[*data.captions[:-1], ["picture 299", "Again"]])) == ["captions"]
    assert changed(data, replace(data, captions=[*data.captions[:-2], *data.captions[:-3:-1]])) == ["captions"]
    assert changed(data, replace(data, names=[*data.names[:-1], "last"])) == ["names"]
    assert changed(data, replace(data, images=data.images ^ 1)) == ["pictures"]
    last = data.images.clone(); last[-1, 0, 0, 0] ^= 1
    assert changed(data, replace(data, images=last)) == ["pictures"]       # the sample reaches from end to end
    assert changed(data, some_data(299)) == ["number", "names", "captions", "pictures"]
    assert identity(replace(data, images=data.images.numpy())) == identity(data)
    assert identity(some_data(1))["number"] == 1


# ---- streams ----

PURPOSES = ("step", "order", "masks", "validation", "sheets", "zoneout")
KEYS = st.tuples(st.integers(-2 ** 63, 2 ** 63 - 1), st.integers(0, 10 ** 6), st.sampled_from(PURPOSES))


def drawn(seed, number, purpose):
    return torch.randint(0, 2 ** 62, (4,), generator=stream(seed, number, purpose)).tolist()


@settings(max_examples=200)
@forall(KEYS, KEYS)
def test_no_two_keys_share_a_stream(a, b):
    assert (drawn(*a) == drawn(*b)) == (a == b)


def test_neighbours_in_every_direction_share_nothing():
    seeds = (0, 1, -1, 2 ** 32, 2 ** 32 + 1, 1_000_003)
    keys = [(seed, number, purpose) for seed in seeds for number in range(200) for purpose in PURPOSES]
    assert len({tuple(drawn(*key)) for key in keys}) == len(keys)


def test_validation_sheets_and_permutations_have_streams_of_their_own(monkeypatch):
    "What `validate` and `sheets` draw from is no epoch's permutation, and no step's questions."
    from my3yearold import batches, training, validation
    seen = {}
    def watched(module, name):
        honest = getattr(module, name)
        def watching(seed, number, *rest):
            purpose = rest[-1] if rest and isinstance(rest[-1], str) else "step"
            seen.setdefault((module.__name__.split(".")[1], name), set()).add((number, purpose))
            return honest(seed, number, *rest)
        monkeypatch.setattr(module, name, watching)
    for module in (batches, validation):
        for name in ("stream", "keyed"): watched(module, name)
    data = load_data("scenes", "train", 16, 16)
    vocabulary = Vocabulary.build(data.captions)
    examples, config = Examples(data, vocabulary, CPU), TrainConfig(size=16, scored=30, num_valid=4)
    model = training.OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1))
    for step in range(5): questions(config, examples, decide(config, examples, step))
    validation.validate(model, examples, config)
    validation.sheets(model, examples, config, 2)
    assert seen == {
        ("batches", "keyed"): {(step, "step") for step in range(5)},
        ("batches", "stream"): {(epoch, "order") for epoch in range(3)},
        ("validation", "keyed"): {(0, "validation")},
        ("validation", "stream"): {(0, "sheets"), (1, "sheets")},
    }


def test_every_question_follows_from_the_seed_and_the_step():
    class SamePictures(Examples):
        def index(self, step, batch_size, seed): return torch.arange(batch_size)
    data = load_data("scenes", "train", 16, 64)
    examples = SamePictures(data, Vocabulary.build(data.captions), CPU)
    def asked(seed, step):
        config = TrainConfig(size=16, scored=90, seed=seed, caption_dropout=0.5)
        return questions(config, examples, decide(config, examples, step))
    for a, b in zip(asked(3, 5), asked(3, 5)): assert torch.equal(a, b)
    for other in (asked(4, 5), asked(3, 6)):
        for name in ("given", "ids", "where", "weight"):
            assert not torch.equal(getattr(asked(3, 5), name), getattr(other, name)), name


def by_example(question): # the examples of a question in an order that hangs on nothing but them
    return sorted(zip(*(map(str, x.tolist()) for x in question)))


@settings(max_examples=25, deadline=None)
@forall(st.integers(0, 10 ** 6), st.sampled_from((1, 2, 3, 4, 6)), st.booleans())
def test_parts_of_a_batch_are_asked_what_the_whole_is(step, count, stratified):
    "Whatever the number of processes and rounds: the same pictures, captions, masks, variables, weights and counts."
    config = TrainConfig(size=16, scored=30, batch_size=12, flip=0.5, stratified=stratified, masks=",".join(MASKS))
    plan = decide(config, BOXED, step)
    whole = questions(config, BOXED, plan)
    parts = [questions(config, BOXED, plan[i:i + 12 // count]) for i in range(0, 12, 12 // count)]
    assert by_example(whole) == sorted(row for part in parts for row in by_example(part))


def test_strata_of_each_kind_fill_their_range():
    kind = torch.tensor([2, 0, 2, 2, 0, 5])
    dealt = deal(kind, torch.rand(6, generator=torch.Generator().manual_seed(0)))
    assert dealt[:, 1].tolist() == [3, 2, 3, 3, 2, 1]
    assert sorted(dealt[kind == 2, 0].tolist()) == [0, 1, 2] and sorted(dealt[kind == 0, 0].tolist()) == [0, 1]
    chance = torch.rand(2000, 3, generator=torch.Generator().manual_seed(1))
    places = torch.cat([deal(torch.zeros(3, dtype=torch.long), u)[:, 0] for u in chance])
    assert (places.bincount() - 2000).abs().max() == 0          # a permutation every time


def test_shares_of_kinds_and_boxes_are_those_of_the_configuration():
    config = TrainConfig(size=16, batch_size=60, masks="orderless=1,rectangle=3", objects=0.25, flip=0.4)
    plans = [decide(config, BOXED, step) for step in range(50)]
    share = torch.cat([plan.kind for plan in plans]).bincount() / 3000
    assert torch.allclose(share, torch.tensor([0.75 / 4, 0.75 * 3 / 4, 0.25]), atol=0.03)
    twins = torch.cat([plan.index >= len(BOXED) for plan in plans]).float().mean()
    assert abs(twins - 0.4) < 0.04
    assert all((plan.kind < 2).all() for plan in (decide(config, UNBOXED, step) for step in range(5)))


def test_given_is_the_box_where_nothing_is_given_in_it():
    config = TrainConfig(size=16, batch_size=60, objects=1.0, scored=30)
    examples = Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), CPU)
    blank = 0
    for step in range(3):
        plan = decide(config, examples, step)
        given = questions(config, examples, plan).given
        for (top, left, bottom, right), own in zip(plan.box.tolist(), given):
            outer = torch.ones(16, 16, dtype=torch.bool)
            outer[max(0, top - 1):bottom + 1, max(0, left - 1):right + 1] = False
            assert own[:, outer].all()
            blank += not own[:, top:bottom, left:right].any()
    # a fifth, and of the others those of whose some hundred variables u ** 4 is less than one: 0.2 + 0.8 * 0.3
    assert 0.35 < blank / 180 < 0.55


def test_all_captions_of_a_run_have_one_length():
    captions = [["a"] * 3, [" ".join(["word"] * 21)], []]
    data = CaptionedImages(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), captions, list("abc"))
    examples = Examples(data, Vocabulary.build(captions, 1), CPU)
    asked = [examples.batch(torch.tensor([i]), torch.tensor([r]))[1] for i, r in ((0, 1), (1, 4), (2, 0))]
    assert {ids.shape for ids in asked} == {(1, 24)}


def test_the_order_of_an_epoch_follows_from_the_seed():
    examples = Examples(load_data("scenes", "train", 16, 64), Vocabulary.build([]), CPU)
    def order(seed, epoch): return torch.cat([examples.index(epoch * 8 + k, 8, seed) for k in range(8)]).tolist()
    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert (
        all(sorted(o) == list(range(64)) for o in orders)
        and len(set(map(tuple, orders))) == 4
        and order(0, 0) == orders[0]
    )
