"Scenes: reproducible, true to their captions, inside their bounds, and judged by measures that work."
import hashlib
import math
import re

import pytest
import torch
from hypothesis import given as for_all, settings, strategies as st

from my3yearold.scenes import (PALETTE, SHAPES, SIZES, coverage, entropy_floor, guess_colour, guess_shape, hide_object,
                               obedience, scenes)

SIZE_WORDS = {'small': ('small', 'little'), 'medium': ('medium',), 'large': ('large', 'big')}
RELATION_WORDS = { # what a caption may say, and the relation it means
    'to the left of': 'left of', 'left of': 'left of', 'to the right of': 'right of', 'right of': 'right of',
    'above': 'above', 'higher than': 'above', 'below': 'below', 'lower than': 'below',
    'on top of': 'on', 'resting on': 'on', 'on': 'on', 'beneath': 'beneath', 'under': 'beneath'}
RELATION = re.compile(r'\b(' + '|'.join(sorted(RELATION_WORDS, key=len, reverse=True)) + r')\b')
COLOUR = re.compile(r'\b(' + '|'.join(PALETTE) + r')\b')


def holds(a, relation, b):
    (top, left, bottom, right), (top_b, left_b, bottom_b, right_b) = a, b
    if relation == 'beneath': return holds(b, 'on', a)
    return {'left of': right < left_b, 'right of': left > right_b, 'above': bottom < top_b, 'below': top > bottom_b,
            'on': bottom == top_b and left_b <= left and right <= right_b}[relation]


def told(caption):
    "Relations of a caption of two or three objects as (colour, relation, colour), read from the words alone."
    text = caption.lower()
    colours, found = COLOUR.findall(text), list(RELATION.finditer(text))
    inverted = found[0].start() < COLOUR.search(text).start()
    pairs = [colours[1::-1] if inverted else colours[:2], colours[2:]]
    return [(a, RELATION_WORDS[w[0]], b) for w, (a, b) in zip(found, pairs)]


def fingerprint(s):
    return hashlib.sha256(s.images.numpy().tobytes() + repr((s.captions, s.objects, s.relations)).encode()).hexdigest()


@pytest.fixture(scope='module')
def many(): return scenes(400, seed=3)


@settings(max_examples=15, deadline=None)
@for_all(
    n=st.integers(0, 6),
    more=st.integers(0, 4),
    seed=st.integers(0, 2**32),
    size=st.integers(16, 128),
    noise=st.floats(0, 6),
)
def test_a_scene_depends_on_seed_and_index_only(n, more, seed, size, noise):
    few, most = scenes(n, size, seed, noise), scenes(n + more, size, seed, noise)
    assert torch.equal(few.images, most.images[:n])
    assert (few.captions, few.objects, few.relations) == (most.captions[:n], most.objects[:n], most.relations[:n])
    assert few.images.shape == (n, 3, size, size) and few.images.dtype == torch.uint8 and len(few) == n


def test_same_seed_same_bytes_and_other_seed_others():
    assert fingerprint(scenes(12, seed=5)) == fingerprint(scenes(12, seed=5))
    assert (
        len(
            {
                hashlib.sha256(image.numpy().tobytes()).digest()
                for seed in range(5)
                for image in scenes(12, seed=seed).images
            }
        )
        == 60
    )


def test_global_random_state_is_neither_read_nor_written():
    import numpy as np
    torch.manual_seed(1); np.random.seed(1)
    first, state, old = fingerprint(scenes(3)), torch.get_rng_state(), np.random.get_state()[1].copy()
    scenes(3)
    assert torch.equal(state, torch.get_rng_state()) and (old == np.random.get_state()[1]).all()
    torch.manual_seed(2); np.random.seed(2)
    assert fingerprint(scenes(3)) == first


def test_every_object_is_named_in_each_of_five_different_captions(many):
    for captions, objects in zip(many.captions, many.objects):
        assert len(captions) == len(set(captions)) == 5
        assert 1 <= len(objects) <= 3 and len({o.colour for o in objects}) == len(objects)
        for caption in captions:
            for o in objects:
                size = '|'.join(SIZE_WORDS[o.size])
                phrase = (fr'\ba (?:(?:{size}) {o.colour} {o.shape}|(?:{size}) {o.shape} (?:in|coloured) {o.colour}'
                          fr'|{o.shape} that is (?:{size}) and {o.colour})\b')
                assert len(re.findall(phrase, caption.lower())) == 1, (caption, o)
            assert caption[0].isupper() and caption.endswith('.') and '{' not in caption and '  ' not in caption


def test_captions_say_what_the_picture_shows(many):
    for captions, objects, relations in zip(many.captions, many.objects, many.relations):
        box = {o.colour: o.box for o in objects}
        assert all(holds(objects[a].box, r, objects[b].box) for a, r, b in relations)
        for caption in captions if len(objects) > 1 else []:
            found = told(caption)
            assert len(found) == len(objects) - 1
            assert all(holds(box[a], r, box[b]) for a, r, b in found), caption


def test_a_false_relation_would_be_noticed(many):
    opposite = {
        'left of': 'right of',
        'right of': 'left of',
        'above': 'below',
        'below': 'above',
        'on': 'below',
        'beneath': 'above',
    }
    for captions, objects in zip(many.captions, many.objects):
        box = {o.colour: o.box for o in objects}
        assert not any(holds(box[a], opposite[r], box[b]) for c in captions if len(objects) > 1 for a, r, b in told(c))


def test_relations_and_looks_all_occur(many):
    objects = [o for each in many.objects for o in each]
    assert {o.shape for o in objects} == set(SHAPES) and len(SHAPES) >= 5
    assert {o.colour for o in objects} == set(PALETTE) and len(PALETTE) == 8
    assert {o.size for o in objects} == set(SIZES)
    assert {r for rs in many.relations for _, r, _ in rs} == {'left of', 'right of', 'above', 'below', 'on'}
    assert {len(each) for each in many.objects} == {1, 2, 3}


def test_vocabulary_is_small_and_lasting(many):
    vocabulary = {w for cs in many.captions for c in cs for w in re.findall(r'\w+', c.lower())}
    later = {w for cs in scenes(200, seed=99).captions for c in cs for w in re.findall(r'\w+', c.lower())}
    assert 40 < len(vocabulary) < 70 and later <= vocabulary


@pytest.mark.parametrize('size', [16, 33, 64, 128])
def test_objects_lie_inside_the_picture_and_apart(size):
    for objects in scenes(100, size=size, seed=2).objects:
        for top, left, bottom, right in (o.box for o in objects):
            assert 1 <= top < bottom <= size - 1 and 1 <= left < right <= size - 1
        for i, a in enumerate(objects):
            for b in objects[:i]:
                overlap = min(a.box[2], b.box[2]) > max(a.box[0], b.box[0]) and min(a.box[3], b.box[3]) > max(
                    a.box[1], b.box[1]
                )
                assert not overlap


def test_size_words_are_ordered_in_pixels(many):
    sides = {word: [o.box[2] - o.box[0] for each in many.objects for o in each if o.size == word] for word in SIZES}
    assert max(sides['small']) < min(sides['medium']) and max(sides['medium']) < min(sides['large'])


def test_objects_are_painted_where_and_as_the_record_says():
    clean = scenes(100, seed=4, noise=0)
    for image, objects in zip(clean.images.float(), clean.objects):
        for o in objects:
            top, left, bottom, right = o.box
            full = torch.tensor(coverage(o.shape, bottom - top, right - left)) == 1
            inside = image[:, top:bottom, left:right][:, full]
            assert (inside / torch.tensor(o.rgb)[:, None] - 1).abs().max() < .1
            assert all(abs(c - p) <= 6 for c, p in zip(o.rgb, PALETTE[o.colour]))


def test_clean_values_keep_clear_of_both_ends():
    clean = scenes(300, seed=6, noise=0).images
    assert clean.min() >= 24 and clean.max() <= 231 # 4 x 6, the largest noise


@pytest.mark.parametrize('noise', [1., 3., 6.])
def test_noise_has_the_strength_asked_for_and_leaves_the_scene_alone(noise):
    clean, noisy = scenes(60, seed=7, noise=0), scenes(60, seed=7, noise=noise)
    assert (clean.captions, clean.objects) == (noisy.captions, noisy.objects)
    residual = noisy.images.double() - clean.images.double()
    # both pictures are rounded, each adding a variance of 1/12
    assert residual.std().item() == pytest.approx(math.sqrt(noise**2 + 1 / 6), rel=.01)
    assert abs(residual.mean().item()) < .05
    flat = residual.flatten(1)
    assert abs(torch.corrcoef(flat[:2])[0, 1]) < .05, 'two pictures share their noise'


def test_backgrounds_are_nearly_grey_and_smooth():
    clean = scenes(100, seed=8, noise=0)
    for image, objects in zip(clean.images.float(), clean.objects):
        empty = torch.ones(64, 64, dtype=torch.bool)
        for o in objects: empty[o.box[0]:o.box[2], o.box[1]:o.box[3]] = False
        pixels = image[:, empty]
        assert (pixels.amax(0) - pixels.amin(0)).max() <= 33
        assert image.diff(dim=2)[:, empty[:, 1:] & empty[:, :-1]].abs().max() <= 2


@pytest.mark.parametrize('noise', [1., 3., 6.])
def test_entropy_floor_is_below_and_near_the_entropy_of_rounded_noise(noise):
    normal, levels = torch.distributions.Normal(0., 1.), torch.arange(-60, 61).double()
    exact = []
    for offset in torch.linspace(-.5, .5, 201).double()[:-1]:
        p = normal.cdf((levels + .5 - offset) / noise) - normal.cdf((levels - .5 - offset) / noise)
        exact.append(-(torch.xlogy(p, p).sum() / math.log(2)).item())
    mean = sum(exact) / len(exact)
    assert 0 < mean - entropy_floor(noise) == pytest.approx(1 / (24 * noise**2 * math.log(2)), rel=.1)


def test_entropy_floor_figures():
    assert entropy_floor(3) == pytest.approx(3.632, abs=1e-3) and entropy_floor(0) == entropy_floor(.1) == 0


def test_measures_agree_with_the_truth_and_not_with_other_captions():
    s = scenes(200, seed=9)
    given, hidden = hide_object(s)
    others = hidden[70:] + hidden[:70]
    shapes = guess_shape(s.images, given)
    assert obedience(s.images, given, hidden).float().mean() >= .99
    assert .04 < obedience(s.images, given, others).float().mean() < .24 # chance is 1/8
    assert sum(g == o.shape for g, o in zip(shapes, hidden)) / 200 >= .95
    assert .06 < sum(g == o.shape for g, o in zip(shapes, others)) / 200 < .30 # chance is 1/6


def test_measures_look_at_hidden_pixels_only():
    s = scenes(30, seed=10)
    given, hidden = hide_object(s)
    green = torch.tensor(PALETTE['green'], dtype=torch.uint8)[:, None, None]
    outside = torch.where(given, green, s.images)
    inside = torch.where(given, s.images, green)
    assert guess_colour(outside, given) == guess_colour(s.images, given)
    assert set(guess_colour(inside, given)) == {'green'} and set(guess_shape(inside, given)) == {'square'}
    everything = torch.ones_like(given)
    assert guess_colour(s.images, everything) == guess_shape(s.images, everything) == [None] * 30
    assert not obedience(s.images, everything, hidden).any()


def test_an_empty_or_grey_filling_never_obeys():
    s = scenes(10, seed=11)
    given, hidden = hide_object(s)
    for level in (0, 128, 255):
        assert not obedience(torch.where(given, s.images, torch.tensor(level, dtype=torch.uint8)), given, hidden).any()


@pytest.mark.parametrize('margin', [0, 3])
def test_hidden_object_is_hidden_whole(margin):
    s = scenes(60, seed=12)
    given, hidden = hide_object(s, margin)
    assert given.dtype == torch.bool and given.shape == s.images.shape and hidden == [o[-1] for o in s.objects]
    for one, o in zip(given, hidden):
        rows, columns = (~one[0]).any(1).nonzero().flatten(), (~one[0]).any(0).nonzero().flatten()
        box = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        assert [int(v) for v in box] == [
            max(0, o.box[0] - margin),
            max(0, o.box[1] - margin),
            min(64, o.box[2] + margin),
            min(64, o.box[3] + margin),
        ]
        assert (~one).sum() == 3 * (box[2] - box[0]) * (box[3] - box[1])


@settings(max_examples=20, deadline=None)
@for_all(shape=st.sampled_from(SHAPES), side=st.integers(12, 60), colour=st.sampled_from(list(PALETTE)))
def test_shape_measure_knows_every_shape_of_twelve_pixels_or_more(shape, side, colour):
    share = torch.tensor(coverage(shape, side, side))
    image = torch.full((1, 3, 64, 64), 128.)
    image[0, :, 2:2 + side, 2:2 + side] += share * (torch.tensor(PALETTE[colour])[:, None, None] - 128.)
    given = torch.zeros(1, 3, 64, 64, dtype=torch.bool)
    assert guess_colour(image, given) == [colour]
    assert guess_shape(image, given) == [shape]


def test_measures_take_an_empty_batch():
    s = scenes(0)
    given, hidden = hide_object(s)
    assert (
        hidden == []
        and guess_colour(s.images, given) == guess_shape(s.images, given) == []
        and obedience(s.images, given, []).shape == (0,)
    )


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(n=-1), 'n is -1'),
        (dict(n=1, size=8), 'size is 8'),
        (dict(n=1, noise=-0.5), 'noise is -0.5'),
        (dict(n=1, noise=7), 'noise is 7'),
        (dict(n=1, noise=float('nan')), 'noise is nan'),
        (dict(n=1, seed=-2), 'seed is -2'),
    ],
)
def test_bad_arguments_get_one_sentence(arguments, words):
    with pytest.raises(ValueError, match=words) as caught: scenes(**arguments)
    message = str(caught.value)
    assert message.endswith('.') and '\n' not in message and message.count('. ') == 0


def test_shared_coverage_cannot_be_spoilt():
    with pytest.raises(ValueError): coverage('circle', 9, 9)[0, 0] = 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device here')
def test_measures_on_the_gpu_are_those_on_the_cpu():
    s = scenes(50, seed=13)
    given, hidden = hide_object(s)
    assert guess_colour(s.images.cuda(), given.cuda()) == guess_colour(s.images, given)
    assert guess_shape(s.images.cuda(), given.cuda()) == guess_shape(s.images, given)
