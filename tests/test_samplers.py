"""The samplers and the drawing helpers: laws against enumeration, holes of any size, generators, faults, animations."""
import math
from itertools import combinations

import pytest
import torch
from hypothesis import given as draws, settings, strategies as st
from PIL import Image

from my3yearold.ancestral import ancestral, cuts, turns
from my3yearold.budgets import entropy_bounded, spend
from my3yearold.gibbs import Filling, blocks, constant, cosine_schedule, gibbs, mend, yao_schedule
from my3yearold.remasking import remasking
from my3yearold.sampling import Central, draw, one_shot
from my3yearold.show import animate, contact_sheet, hole, paint_plan, show_images, to_pil
from my3yearold.yardsticks import chi_square, two_pixels

LEVELS = 5
SAMPLERS = {
    "one_shot": one_shot,
    "ancestral": ancestral,
    "raster": lambda *a, **k: ancestral(*a, order="raster", **k),
    "spread": lambda *a, **k: ancestral(*a, order="spread", **k),
    "spread in 3, central": lambda *a, **k: ancestral(*a, order="spread", evaluations=3, temperature=Central(0.5), **k),
    "ancestral in 3": lambda *a, **k: ancestral(*a, evaluations=3, **k),
    "ancestral in 1, 2, 4 of 7": lambda *a, **k: ancestral(*a, evaluations=[1, 2, 4], **k),
    "greedy": lambda *a, **k: ancestral(*a, order="greedy", **k),
    "antigreedy in 3": lambda *a, **k: ancestral(*a, order="antigreedy", evaluations=3, **k),
    "margin in 2": lambda *a, **k: ancestral(*a, order="margin", evaluations=2, **k),
    "entropy bounded": lambda *a, **k: entropy_bounded(*a, bound=3.0, **k),
    "gibbs": lambda *a, **k: gibbs(*a, num_steps=6, **k),
    "gibbs from 3 turns": lambda *a, **k: gibbs(*a, num_steps=6, start=Filling(3), **k),
    "gibbs from 3 spread turns": lambda *a, **k: gibbs(*a, num_steps=6, start=Filling(3, "spread", Central(0.7)), **k),
    "ancestral blocks": lambda *a, **k: gibbs(*a, num_steps=4, block="ancestral", **k),
    "ancestral blocks in 2": lambda *a, **k: gibbs(
        *a, num_steps=4, block="ancestral", inner=2, schedule=cosine_schedule, **k
    ),
    "remasking": lambda *a, **k: remasking(*a, num_steps=5, rate=0.3, **k),
    "surest kept": lambda *a, **k: remasking(*a, num_steps=4, rate=0.2, keep="surest", **k),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def seeded(seed): return torch.Generator().manual_seed(seed)


def neighbours(images, given, where):
    """A hand-made float64 predictor: levels near the mean of the given values of the same picture are likelier. Each
    picture is reckoned by itself."""
    n, d = where.flatten(1).nonzero(as_tuple=True)
    mean = torch.stack([(i.double() * g).sum() / g.sum().clamp(min=1) for i, g in zip(images, given)])
    return -(torch.arange(LEVELS) - mean[n, None]).abs() - 0.1 * (d[:, None] % 3) * torch.arange(LEVELS)


@st.composite
def batches(draw):
    """Pictures and holes: each picture's hole of its own size, none and all included, channels apart."""
    n, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = 3 * height * width
    generator = seeded(draw(st.integers(0, 1000)))
    images = torch.randint(0, LEVELS, (n, 3, height, width), generator=generator, dtype=torch.uint8)
    hidden = torch.zeros(n, size, dtype=torch.bool)
    for picture in hidden:
        count = draw(st.sampled_from([0, 1, size]) | st.integers(0, size))
        picture[torch.randperm(size, generator=generator)[:count]] = True
    return images, ~hidden.view(images.shape)


@every_sampler
@settings(deadline=None, max_examples=12)
@draws(batches())
def test_given_values_never_change_and_everything_hidden_is_drawn(sampler, batch):
    images, given = batch
    before = images.clone()
    drawn = torch.zeros_like(given)
    for state in sampler(neighbours, images, given, generator=seeded(0)):
        assert torch.equal(state.images[given], before[given])
        assert not (state.redrawn & given).any()
        assert state.images.dtype == torch.uint8 and state.images.max() < LEVELS
        assert state.log_prob.shape == (len(images),) and state.log_prob.dtype == torch.float64
        assert ((state.log_prob < 0) == state.redrawn.flatten(1).any(1)).all()
        drawn |= state.redrawn
    assert torch.equal(drawn, ~given)
    assert torch.equal(images, before), "the caller's pictures were written to"


@every_sampler
@settings(deadline=None, max_examples=8)
@draws(batches())
def test_a_picture_with_its_own_generator_does_not_depend_on_its_batch(sampler, batch):
    images, given = batch
    together = list(sampler(neighbours, images, given, generator=[seeded(s) for s in range(len(images))]))
    for k in range(len(images)):
        alone = list(sampler(neighbours, images[k:k + 1], given[k:k + 1], generator=[seeded(k)]))
        for one, many in zip(alone, together):
            assert torch.equal(one.images[0], many.images[k])
            assert torch.equal(one.redrawn[0], many.redrawn[k])
            assert one.log_prob[0] == many.log_prob[k]
        assert not any(state.redrawn[k].any() for state in together[len(alone):])


@every_sampler
def test_same_seed_same_result_and_another_seed_another(sampler):
    images, given = torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, 3, 4, 4, dtype=torch.bool)
    results = [[s.images for s in sampler(neighbours, images, given, generator=seeded(s))] for s in (1, 1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1]))
    assert not torch.equal(results[0][-1], results[2][-1])


@every_sampler
def test_what_was_hidden_cannot_be_seen(sampler):
    given = torch.arange(27).view(1, 3, 3, 3) % 2 == 0
    truth = torch.randint(0, LEVELS, (1, 3, 3, 3), generator=seeded(0), dtype=torch.uint8)
    other = torch.where(given, truth, LEVELS - 1 - truth)
    def peeks(images, given, where): return 9 * torch.nn.functional.one_hot(images[where].long(), LEVELS).double()

    for a, b in zip(
        sampler(peeks, truth, given, generator=seeded(1)), sampler(peeks, other, given, generator=seeded(1))
    ):
        assert torch.equal(a.images, b.images)


@every_sampler
def test_collected_states_are_not_overwritten(sampler):
    images, given = torch.zeros(1, 3, 3, 3, dtype=torch.uint8), torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    kept, copies = [], []
    for state in sampler(neighbours, images, given, generator=seeded(3)):
        kept.append(state)
        copies.append((state.images.clone(), state.redrawn.clone()))
    assert all(torch.equal(s.images, i) and torch.equal(s.redrawn, r) for s, (i, r) in zip(kept, copies))


def counting(calls):
    def predict(images, given, where):
        assert where.any() and not (where & given).any(), "asked for nothing, or for something given"
        calls.append(int(where.sum()))
        return neighbours(images, given, where)
    return predict


@pytest.mark.parametrize(
    "evaluations, expected", [(None, [2] * 4 + [1] * 8), (1, [16]), (5, [4, 3, 4, 3, 2]), (100, [2] * 4 + [1] * 8)]
)
def test_ancestral_calls_the_predictor_as_often_as_it_says(evaluations, expected):
    given = torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    given[1].view(-1)[4:] = True                                            # twelve variables hidden, and four
    calls = []
    states = list(
        ancestral(
            counting(calls),
            torch.zeros(2, 3, 2, 2, dtype=torch.uint8),
            given,
            evaluations=evaluations,
            generator=seeded(0),
        )
    )
    assert len(calls) == len(states) == len(expected) and sum(calls) == 16
    assert calls == expected


def test_gibbs_evaluates_once_a_step_at_most():
    images, given = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, 3, 4, 4, dtype=torch.bool)
    calls = []
    states = list(gibbs(counting(calls), images, given, num_steps=20, generator=seeded(0)))
    assert len(states) == len(calls) == 20 and calls[0] == 96
    still = list(
        gibbs(counting(calls := []), images, given, num_steps=20, schedule=lambda s, n: 0.0, generator=seeded(0))
    )
    assert len(still) == 20 and len(calls) == 1 and torch.equal(still[0].images, still[-1].images)


@pytest.mark.parametrize("sampler, states", [(one_shot, 1), (ancestral, 0), (gibbs, 100)])
def test_a_hole_of_nothing(sampler, states):
    images = torch.randint(0, LEVELS, (2, 3, 4, 4), generator=seeded(0), dtype=torch.uint8)
    result = list(
        sampler(counting(calls := []), images, torch.ones_like(images, dtype=torch.bool), generator=seeded(0))
    )
    assert len(result) == states and not calls
    assert all(torch.equal(s.images, images) and not s.redrawn.any() and not s.log_prob.any() for s in result)


def test_turns_are_a_fair_shuffle_and_nearly_equal():
    hidden = torch.ones(20_000, 3, 1, 2, dtype=torch.bool)
    rank = turns(hidden, generator=seeded(0)).flatten(1)
    assert torch.equal(rank.sort(1).values, torch.arange(6).expand(20_000, 6))
    code = (rank * 6 ** torch.arange(6)).sum(1).unique(return_counts=True)[1]
    assert len(code) == 720 and chi_square(code, torch.full((720,), 1 / 720)) > 1e-3
    for k in range(1, 9):
        sizes = turns(hidden[:50], evaluations=k, generator=seeded(k)).flatten(1)
        counts = torch.stack([t.bincount(minlength=min(k, 6)) for t in sizes])
        assert counts.shape[1] == min(k, 6) and counts.max() - counts.min() <= 1


def test_raster_goes_pixel_by_pixel():
    turn = turns(torch.ones(1, 3, 2, 2, dtype=torch.bool), order="raster")
    assert turn[0].permute(1, 2, 0).flatten().tolist() == list(range(12))


def test_a_spread_order_takes_far_apart_first_whatever_the_hole():
    """The first turn's variables are farther from each other than a random order's, in holes of any form."""
    y, x = torch.arange(40)[:, None], torch.arange(40)
    holes = [
        (y - 20) ** 2 + (x - 20) ** 2 < 200,
        (y + x) % 37 < 14,
        (y > 2) & (y < 9) & (x >= 0),
        torch.ones(40, 40, dtype=torch.bool),
    ]

    def nearest(order): # mean distance of a variable of the first sixteenth to the nearest other of its channel
        found = []
        for seed, one in enumerate(holes * 5):
            turn = turns(one.expand(1, 3, 40, 40), order, 16, seeded(seed))
            for channel in (turn[0] == 0):
                apart = torch.cdist(*2 * [channel.nonzero().double()])
                found += apart.fill_diagonal_(torch.inf).amin(1).tolist() if len(apart) > 1 else []
        return sum(found) / len(found)
    assert nearest("spread") > 1.25 * nearest("random")


def test_a_central_temperature_of_1_is_the_law_and_of_0_the_median():
    logits = 2 * torch.randn(300, 64, generator=seeded(0))
    assert torch.equal(draw(logits, seeded(1), Central(1))[0], draw(logits, seeded(1))[0])
    median = (logits.double().softmax(1).cumsum(1) <= 0.5).sum(1)
    values, log_prob = draw(logits, seeded(1), Central(0))
    assert torch.equal(values, median)
    assert torch.allclose(log_prob, logits.double().log_softmax(1).gather(1, values[:, None]).squeeze(1))


@settings(max_examples=50, deadline=None)
@draws(t=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_a_central_draw_lies_between_its_quantiles(t, seed):
    logits = 3 * torch.randn(40, 16, generator=seeded(seed))
    values, _ = draw(logits, seeded(seed + 1), Central(t))
    c = logits.double().softmax(1).cumsum(1)
    upper, lower = (
        c.gather(1, values[:, None]).squeeze(1),
        c.gather(1, (values[:, None] - 1).clamp(min=0)).squeeze(1) * (values > 0),
    )
    assert (upper >= (1 - t) / 2 - 1e-12).all() and (lower <= (1 + t) / 2 + 1e-12).all()


def test_draw_follows_its_law_at_every_temperature():
    row = 2 * torch.randn(64, generator=seeded(0))
    for temperature in (0.5, 1.0, 2.0):
        values, log_prob = draw(row.expand(100_000, 64), seeded(1), temperature)
        assert chi_square(values.bincount(minlength=64), torch.softmax(row.double() / temperature, 0)) > 1e-3
        # always that of temperature 1
        assert torch.allclose(log_prob, row.double().log_softmax(0)[values], atol=1e-9)
    values, _ = draw(row.expand(10, 64), seeded(1), 0)
    assert (values == row.argmax()).all()


def test_draw_never_takes_a_level_of_probability_zero():
    row = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        values, log_prob = draw(row.to(dtype).expand(20_000, 5), seeded(0))
        assert set(values.tolist()) == {1, 3} and torch.allclose(log_prob, torch.tensor(-math.log(2)).double())
    assert draw(torch.tensor([[1000.0, -1000.0]]), seeded(0), 1e-3)[0].item() == 0


def test_draw_keeps_the_rarest_levels():
    """Float32 uniforms are multiples of 2**-24: with them a level of 1e-9 at the end of the line would come far too
    often or never."""
    import my3yearold.sampling as sampling
    row = torch.tensor([1 - 1e-9, 1e-9], dtype=torch.float64).log().expand(2, 2)
    values, _ = sampling._inverse_cdf(row, torch.tensor([1 - 1.01e-9, 1 - 0.99e-9], dtype=torch.float64), 1.0)
    assert values.tolist() == [0, 1]


def filled(sampler, joint, n=20_000, **options):
    blank = torch.zeros(n, *joint.shape, dtype=torch.uint8)
    *_, last = sampler(joint, blank, torch.zeros_like(blank, dtype=torch.bool), **options)
    return joint.counts(last.images)


@pytest.mark.parametrize("order", ["random", "spread", "raster"])
def test_ancestral_is_exact_and_one_shot_is_not(order):
    joint = two_pixels(seed=1)
    assert chi_square(filled(ancestral, joint, order=order, generator=seeded(1)), joint.law) > 1e-3
    assert chi_square(filled(one_shot, joint, generator=seeded(1)), joint.law) < 1e-9
    assert chi_square(filled(ancestral, joint, evaluations=3, generator=seeded(1)), joint.law) < 1e-9


def test_ancestral_is_exact_given_some_of_the_picture():
    joint = two_pixels(seed=2)
    given = torch.tensor([True, False, True, False, False, False]).view(1, 3, 1, 2).expand(20_000, 3, 1, 2)
    images = joint.images[[500]].expand(20_000, 3, 1, 2)
    *_, last = ancestral(joint, images, given, generator=seeded(0))
    agrees = ((joint.images == joint.images[500]) | ~given[0]).flatten(1).all(1)
    assert chi_square(joint.counts(last.images)[agrees], joint.law[agrees] / joint.law[agrees].sum()) > 1e-3
    assert joint.counts(last.images)[~agrees].sum() == 0


def test_the_log_probability_is_the_table_s():
    joint = two_pixels()
    blank = torch.zeros(50, 3, 1, 2, dtype=torch.uint8)
    states = list(
        ancestral(joint, blank, torch.zeros_like(blank, dtype=torch.bool), generator=seeded(0), temperature=0.7)
    )
    place = [int((joint.images == i).flatten(1).all(1).nonzero()) for i in states[-1].images]
    assert torch.allclose(sum(s.log_prob for s in states), joint.law[place].log())


def test_gibbs_in_yao_s_direction_comes_nearer_than_backwards_and_one_shot():
    joint, distance = two_pixels(), {}
    schedules = {"yao": yao_schedule, "backwards": lambda s, n: 1 - yao_schedule(s, n)}
    for name, schedule in schedules.items():
        counts = filled(gibbs, joint, num_steps=20, n=10_000, schedule=schedule, generator=seeded(0))
        distance[name] = float((counts / counts.sum() - joint.law).abs().sum() / 2)
    counts = filled(one_shot, joint, n=10_000, generator=seeded(0))
    distance["shot"] = float((counts / counts.sum() - joint.law).abs().sum() / 2)
    assert distance["yao"] < 0.15 < 0.4 < distance["backwards"] < distance["shot"]


def test_gibbs_with_small_blocks_converges_to_the_law():
    joint = two_pixels(coupling=0.7)
    single = lambda step, steps: 0.02
    start = filled(gibbs, joint, n=2000, num_steps=2, schedule=single, generator=seeded(0))
    end = filled(gibbs, joint, n=2000, num_steps=300, schedule=single, generator=seeded(0))
    assert chi_square(start, joint.law) < 1e-9 < 1e-3 < chi_square(end, joint.law)


def test_yao_s_schedule():
    alphas = [yao_schedule(s, 100) for s in range(100)]
    assert alphas[0] == 0.9 and alphas[-1] == 0.1 and all(a >= b for a, b in zip(alphas, alphas[1:]))
    assert alphas[69] > 0.1 and alphas[70] == pytest.approx(0.1)
    assert yao_schedule(35, 100) == pytest.approx(0.5)


def test_blocks_redraw_as_many_as_the_schedule_says():
    hidden = torch.rand(4, 3, 32, 32, generator=seeded(0)) < 0.5
    plan = list(blocks(hidden, 10, generator=seeded(1)))
    assert torch.equal(plan[0], hidden)
    for step, block in enumerate(plan[1:], 1):
        assert not (block & ~hidden).any()
        assert float(block[hidden].double().mean()) == pytest.approx(yao_schedule(step, 10), abs=0.03)


IMAGES, GIVEN = torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.zeros(2, 3, 2, 2, dtype=torch.bool)


@pytest.mark.parametrize("call, words", [
    (lambda: ancestral(neighbours, IMAGES, GIVEN, order="magic"), "magic.*random, spread"),
    (lambda: ancestral(neighbours, IMAGES, GIVEN, evaluations=[3, 0]), "sizes of the turns are all above 0"),
    (lambda: list(entropy_bounded(neighbours, IMAGES, GIVEN, -1)), "bound=-1"),
    (lambda: list(remasking(neighbours, IMAGES, GIVEN, rate=2)), "rate=2"),
    (lambda: list(remasking(neighbours, IMAGES, GIVEN, keep="all")), "all.*random.*surest"),
    (lambda: spend(torch.ones(4), 5), "evaluations=5.*4 pieces"),
    (lambda: ancestral(neighbours, IMAGES, GIVEN, evaluations=0), "evaluations=0"),
    (lambda: gibbs(neighbours, IMAGES, GIVEN, block="big"), "big.*independent.*ancestral"),
    (lambda: gibbs(neighbours, IMAGES, GIVEN, num_steps=0), "num_steps=0"),
    (lambda: gibbs(neighbours, IMAGES, GIVEN, num_steps=5, start=Filling(6)), "turns=6.*num_steps=5"),
    (lambda: one_shot(neighbours, IMAGES.float(), GIVEN), "float32.*uint8"),
    (lambda: one_shot(neighbours, IMAGES, GIVEN.int()), "int32.*boolean"),
    (lambda: one_shot(neighbours, IMAGES, GIVEN[:1]), r"\(2, 3, 2, 2\).*\(1, 3, 2, 2\)"),
    (lambda: list(one_shot(neighbours, IMAGES, GIVEN, generator=[seeded(0)])), "1 generators for 2 pictures"),
    (lambda: list(one_shot(neighbours, IMAGES, GIVEN, temperature=-1)), "temperature -1"),
    (lambda: Central(1.5), "central temperature 1.5.*between 0"),
    (lambda: Central(math.nan), "central temperature nan"),
    (lambda: turns(~GIVEN, "greedy"), "greedy.*cannot be dealt.*spread"),
    (lambda: gibbs(neighbours, IMAGES, GIVEN, 5, start=Filling(3, "magic")), "magic"),
    (lambda: draw(torch.full((3, 4), math.nan)), "NaN"),
    (lambda: draw(torch.full((3, 4), -math.inf)), "NaN or infinity"),
    (lambda: animate([], "film.gif"), "film.gif.*at least one frame"),
    (lambda: contact_sheet([]), "at least one picture"),
])
def test_faults_are_told_in_one_sentence_at_the_call(call, words):
    with pytest.raises(ValueError, match=words): call()


def test_a_sampler_needs_no_gradient():
    weight = torch.zeros(LEVELS, requires_grad=True)
    state, = one_shot(lambda images, given, where: weight.expand(int(where.sum()), LEVELS), IMAGES, GIVEN)
    assert not state.log_prob.requires_grad


# ---- show

def frames_of(path):
    with Image.open(path) as gif:
        frames = []
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append((gif.convert("RGB"), gif.info["duration"]))
        return frames, gif.info.get("loop")


@pytest.mark.parametrize("states, kept", [(1, 1), (7, 7), (48, 48), (200, 48)])
def test_an_animation_holds_its_last_frame(tmp_path, states, kept):
    frames = [torch.full((3, 8, 8), k + 20, dtype=torch.uint8) for k in range(states)]
    path = animate(frames, tmp_path / "film.gif", duration=0.05, hold=3, scale=2)
    shown, loop = frames_of(path)
    assert len(shown) == kept
    if states > 1: assert loop == 0 and [d for _, d in shown] == [50] * (kept - 1) + [3000]
    assert shown[0][0].size == (16, 16)
    for (picture, _), tensor in ((shown[0], frames[0]), (shown[-1], frames[-1])):
        assert abs(picture.getpixel((5, 5))[0] - int(tensor[0, 0, 0])) <= 1


def test_what_stands_still_does_not_flicker(tmp_path):
    still = torch.randint(0, 256, (3, 16, 16), generator=seeded(0), dtype=torch.uint8)
    frames = [
        torch.where(
            torch.arange(16) < 8, still, torch.randint(0, 256, (3, 16, 16), generator=seeded(k), dtype=torch.uint8)
        )
        for k in range(10)
    ]
    shown, _ = frames_of(animate(frames, tmp_path / "film.gif"))
    left = [picture.crop((0, 0, 8, 16)).tobytes() for picture, _ in shown]
    assert len(set(left)) == 1 and len(shown) == 10


def test_an_animation_takes_pil_frames(tmp_path):
    frames = [Image.new("RGB", (10, 6), (k * 20, 0, 0)) for k in range(5)]
    shown, _ = frames_of(animate(frames, str(tmp_path / "film.gif")))
    assert len(shown) == 5 and shown[0][0].size == (10, 6)


def test_a_hole_is_painted_where_hidden_only():
    images = torch.randint(0, 256, (2, 3, 9, 7), generator=seeded(0), dtype=torch.uint8)
    given = torch.rand(2, 3, 9, 7, generator=seeded(1)) < 0.5
    painted = hole(images, given)
    assert painted.dtype == torch.uint8 and torch.equal(painted[given], images[given])
    assert set(painted[~given].tolist()) == {112, 144}
    assert torch.equal(hole(images[0], given[0]), painted[0])


def test_contact_sheet_lays_out_pictures_of_any_size():
    images = [
        torch.full((3, 4, 6), 10, dtype=torch.uint8),
        Image.new("L", (3, 8), 200),
        torch.zeros(3, 2, 2, dtype=torch.uint8),
    ]
    sheet = contact_sheet(images, columns=2, scale=2, titles=["one", "a title that is much too long", "\u732b"], gap=4)
    assert sheet.size == (2 * (12 + 4) + 4, 2 * (16 + 14 + 4) + 4)
    assert (
        sheet.getpixel((4, 4)) == (10, 10, 10)
        and sheet.getpixel((20, 4)) == (200, 200, 200)
        and sheet.getpixel((1, 1)) == (255, 255, 255)
    )


def test_pictures_and_plans():
    image = torch.randint(0, 256, (3, 5, 4), generator=seeded(0), dtype=torch.uint8)
    assert to_pil(image).size == (4, 5) and to_pil(image).getpixel((1, 2)) == tuple(image[:, 2, 1].tolist())
    hidden = torch.tensor([[True, True, True, False]])
    plan = paint_plan(hidden, torch.tensor([[True, False, False, True]]), torch.tensor([[False, True, False, False]]))
    assert plan[:, 0].T.tolist() == [[150, 150, 150], [240, 130, 20], [0, 0, 0], [255, 255, 255]]


def test_show_images_draws_a_grid():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    figure = show_images(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), ["a", "b"], columns=3)
    assert len(figure.axes) == 6 and figure.dpi == 72 and figure.axes[1].get_title() == "b"
    plt.close(figure)


# ---- turns of unequal size, blocks that are exact, chains that start from pictures ----

@draws(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_cuts_begin_at_0_end_at_the_size_and_never_fall(shares, sizes):
    size = torch.tensor(sizes)
    for evaluations in (None, 1, 5, shares):
        begin = cuts(size, evaluations)
        assert (begin[:, 0] == 0).all() and torch.equal(begin[:, -1], size)
        assert (begin.diff(dim=1) >= 0).all()
    assert cuts(torch.tensor([7]), [1, 2, 4]).tolist() == [[0, 1, 3, 7]]


@draws(st.lists(st.integers(0, 50), min_size=2, max_size=7), st.data())
def test_spend_finds_what_brute_force_finds(losses, data):
    losses = torch.tensor(sorted(losses, reverse=True)).double()
    k = data.draw(st.integers(1, len(losses)))
    price = lambda ends: sum((b - a) * losses[a].item() for a, b in zip((0, *ends), (*ends, len(losses)))) / len(losses)
    sizes, cost = spend(losses, k)
    assert len(sizes) == k and sum(sizes) == len(losses) and min(sizes) > 0
    assert cost == pytest.approx(min(price(ends) for ends in combinations(range(1, len(losses)), k - 1)))
    assert cost == pytest.approx(price(tuple(torch.tensor(sizes).cumsum(0)[:-1].tolist())))


@pytest.mark.parametrize("order", ["greedy", "antigreedy", "margin"])
def test_orders_that_look_first_draw_from_the_law(order):
    joint = two_pixels()
    assert chi_square(filled(ancestral, joint, order=order, generator=seeded(1)), joint.law) > 0.001


def test_greedy_draws_the_surest_first():
    logits = torch.zeros(12, LEVELS)
    logits[:, 0] = torch.arange(12.0)                                   # the later, the surer
    predict = lambda images, given, where: logits[where.flatten()]
    states = list(
        ancestral(
            predict,
            torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
            torch.zeros(1, 3, 2, 2, dtype=torch.bool),
            "greedy",
            4,
            seeded(0),
        )
    )
    assert [s.redrawn.flatten().nonzero().flatten().tolist() for s in states] == [
        [9, 10, 11],
        [6, 7, 8],
        [3, 4, 5],
        [0, 1, 2],
    ]


def test_ancestral_blocks_leave_the_law_as_it_is_and_blind_ones_do_not():
    joint, n = two_pixels(), 20_000
    blank = torch.zeros(n, *joint.shape, dtype=torch.uint8)
    given = torch.zeros_like(blank, dtype=torch.bool)
    exact = [*ancestral(joint, blank, given, generator=seeded(2))][-1].images
    after = {
        block: [*mend(joint, exact, given, 3, constant(0.6), block, seeded(3))][-1].images
        for block in ("ancestral", "independent")
    }
    assert chi_square(joint.counts(after["ancestral"]), joint.law) > 0.001
    assert chi_square(joint.counts(after["independent"]), joint.law) < 1e-9


def test_mending_starts_from_what_is_there_and_a_whole_chain_never_reads_hidden_input():
    images, given = torch.full((2, 3, 2, 2), 4, dtype=torch.uint8), torch.zeros(2, 3, 2, 2, dtype=torch.bool)
    given[0, :, 0] = True
    still, = mend(neighbours, images, given, 1, constant(0.0))
    assert torch.equal(still.images, images)
    one, two = (
        [
            *gibbs(
                neighbours,
                torch.where(given, images, torch.tensor(junk, dtype=torch.uint8)),
                given,
                4,
                generator=seeded(0),
                start=Filling(3),
            )
        ][-1].images
        for junk in (0, 3)
    )
    assert torch.equal(one, two)
