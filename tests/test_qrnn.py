"""The reader: one recurrence in two forms, gates that see the past only, and captions that do not notice padding."""
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, strategies as st

from my3yearold.saving import load_model
from my3yearold.qrnn import QRNN, QRNNLayer, forget_mult, reverse_words

WEIGHTS = Path(__file__).resolve().parent.parent / "my3yearold" / "weights"


def loop(f, u, h):
    "c_t = f_t c_{t-1} + u_t as it stands."
    states = []
    for t in range(f.shape[1]):
        h = f[:, t] * h + u[:, t]
        states.append(h)
    return torch.stack(states, 1)


# ---- the recurrence ----

@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 1000))
def test_forget_mult_is_the_loop(n, t, c, started, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = (n, t, c), (n, t, c), (n, c), (n, t, c)
    f, z, h0, probe = (torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)
    f = f.sigmoid()
    inputs = [v.requires_grad_() for v in ((f, z, h0) if started else (f, z))]
    slow = loop(f, (1 - f) * z, h0 if started else torch.zeros_like(h0))
    fast = forget_mult(f, z, h0 if started else None)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((states * probe).sum(), inputs) for states in (fast, slow)]
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_forget_mult_of_saturated_gates():
    "Gates of exactly 0 and 1 copy the word and the state, and nothing becomes NaN."
    f = torch.tensor([[[0.0], [1.0], [1.0], [0.0]]], requires_grad=True)
    z = torch.tensor([[[3.0], [5.0], [7.0], [9.0]]])
    h = forget_mult(f, z)
    assert h.flatten().tolist() == [3, 3, 3, 9]
    assert torch.autograd.grad(h.sum(), f)[0].isfinite().all()


def test_strided_gates_and_inputs_left_alone():
    "The gates come as transposed slices of one tensor; the recurrence works in place on its own copy only."
    f, z = (torch.randn(2, 3, 7, dtype=torch.float64).transpose(1, 2) for _ in range(2))
    f = f.sigmoid()
    kept = f.clone(), z.clone()
    torch.testing.assert_close(forget_mult(f, z), loop(f, (1 - f) * z, torch.zeros(2, 3, dtype=torch.float64)))
    assert torch.equal(f, kept[0]) and torch.equal(z, kept[1])


def test_the_work_is_linear_in_the_length():
    "What autograd keeps grows with the caption, not with its square."
    def kept(length):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda v: sizes.append(v.numel()) or v, lambda v: v):
            QRNN(4, 4)(torch.randn(1, length, 4, requires_grad=True))
        return sum(sizes)
    assert kept(128) < 4.2 * kept(32)


# ---- the layer ----

@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_layer_by_hand(pooling, window, layer_norm):
    layer = QRNNLayer(3, 4, window, pooling, layer_norm=layer_norm, learned_start=True).double()
    with torch.no_grad():
        for p in layer.parameters(): p.copy_(torch.randn_like(p))
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    padded = torch.cat([torch.zeros(2, window - 1, 3, dtype=torch.float64), x], 1)
    def norm(name, v): return layer.norms[name](v) if layer_norm else v
    c, expected = layer.start.expand(2, 4), []
    for t in range(6):
        raw = layer.gates.bias + sum(padded[:, t + j] @ layer.gates.weight[:, :, j].T for j in range(window))
        gate = {name: norm(name, v) for name, v in zip("z" + pooling, raw.chunk(1 + len(pooling), -1))}
        gate = {name: v.tanh() if name == "z" else v.sigmoid() for name, v in gate.items()}
        c = gate["f"] * c + gate.get("i", 1 - gate["f"]) * gate["z"]
        expected.append(gate.get("o", 1) * norm("cell", c))
    torch.testing.assert_close(layer(x)[0], torch.stack(expected, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_forget_bias_raises_the_forget_gates_alone(layer_norm):
    torch.manual_seed(3)
    plain = QRNN(3, 4, pooling="ifo", layer_norm=layer_norm, num_layers=2, bidirectional=True)
    torch.manual_seed(3)
    biased = QRNN(3, 4, pooling="ifo", layer_norm=layer_norm, num_layers=2, bidirectional=True, forget_bias=5.0)
    both = zip(plain.named_parameters(), biased.parameters())
    changed = {name: b - a for (name, a), b in both if not torch.equal(a, b)}
    assert len(changed) == 4                                               # one in each reader
    for name, change in changed.items():
        if layer_norm:
            assert name.endswith("norms.f.bias")
            torch.testing.assert_close(change, torch.full((4,), 5.0))
        else:                                                              # gates stand in the order z, i, f, o
            assert name.endswith("gates.bias")
            torch.testing.assert_close(change, torch.tensor([0.0] * 8 + [5.0] * 4 + [0.0] * 4))


def test_learned_start_is_what_is_there_before_the_first_word():
    layer = QRNN(3, 4, pooling="f", learned_start=True)
    with torch.no_grad():
        layer.gates.weight.zero_(); layer.gates.bias.zero_(); layer.start.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    states, _ = layer(torch.randn(1, 2, 3))
    torch.testing.assert_close(states[0], torch.tensor([[0.5, 1.0, 1.5, 2.0], [0.25, 0.5, 0.75, 1.0]]))
    states.sum().backward()
    assert layer.start.grad.abs().min() > 0


# ---- zoneout ----

@pytest.mark.parametrize("pooling", ["f", "ifo"])
def test_zoneout_keeps_or_updates_without_rescaling(pooling):
    "In training a neuron's state is exactly the old one or exactly what the gates say; how often is the probability."
    layer = QRNN(3, 400, pooling=pooling, zoneout=0.3)
    x = torch.randn(1, 9, 3)
    with torch.no_grad():
        if pooling == "ifo": layer.gates.bias[-400:] = 100.0               # o = 1: the state is shown as it is
        states = torch.cat([torch.zeros(1, 1, 400), layer.train()(x)[0]], 1)[0]
        padded = torch.nn.functional.pad(x.transpose(1, 2), (1, 0))
        z, *gates = layer.gates(padded).transpose(1, 2)[0].chunk(1 + len(pooling), -1)
        gate = dict(zip(pooling, (g.sigmoid() for g in gates)))
        update = gate["f"] * states[:-1] + gate.get("i", 1 - gate["f"]) * z.tanh()
    kept, updated = states[1:] == states[:-1], (states[1:] - update).abs() < 1e-6
    assert (kept | updated).all()
    assert abs(kept.float().mean() - 0.3) < 0.03                           # 3,600 draws: 4 standard deviations


def test_zoneout_is_off_in_evaluation():
    layer, x = QRNN(3, 8, zoneout=0.5), torch.randn(2, 6, 3)
    plain = QRNN(3, 8)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer.eval()(x)[0], plain(x)[0])
    assert not torch.equal(layer.train()(x)[0], plain(x)[0])


# ---- the stack ----

EITHER = (False, True)
GRID = itertools.product((1, 3), EITHER, EITHER, EITHER, ("f", "fo", "ifo"))
OPTIONS = [dict(pooling=pooling, num_layers=layers, bidirectional=both, layer_norm=norm, dense=dense,
                learned_start=i % 2 == 1, window=1 + i % 3)
           for i, (layers, both, norm, dense, pooling) in enumerate(GRID)]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_padding_changes_nothing(options):
    "Each caption of a batch is read as alone; padding reaches no state, no summary and gets no gradient."
    directions = 1 + options["bidirectional"]
    reader = QRNN(3, 4, zoneout=0.2, forget_bias=1.0, **options).double().eval()
    with torch.no_grad():
        for p in reader.parameters(): p.copy_(torch.randn_like(p))
    lengths = torch.tensor([6, 3, 1, 0])
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    x[torch.arange(6) >= lengths[:, None]] = 1e3
    x.requires_grad_()
    states, summary = reader(x, lengths)
    assert states.shape == (4, 6, 4 * directions) and summary.shape == (4, 4 * directions)
    for i, n in enumerate(lengths.tolist()):
        assert (states[i, n:] == 0).all()
        if n == 0: assert (summary[i] == 0).all(); continue
        alone, alone_summary = reader(x[i:i + 1, :n])
        torch.testing.assert_close(states[i, :n], alone[0])
        torch.testing.assert_close(summary[i], alone_summary[0])
        torch.testing.assert_close(summary[i, :4], states[i, n - 1, :4])   # forwards: the last real word
        if directions == 2: torch.testing.assert_close(summary[i, 4:], states[i, 0, 4:])   # backwards: the first
    gradient = torch.autograd.grad((states.square().sum() + summary.square().sum()), x)[0]
    real = torch.arange(6) < lengths[:, None]
    assert (gradient[~real] == 0).all() and (gradient[real] != 0).any(-1).all()


def test_padding_changes_nothing_in_training():
    "Zoneout too: with the same masks, what stands in the padding is not seen."
    reader, lengths = QRNN(3, 4, zoneout=0.5, num_layers=2, bidirectional=True).train(), torch.tensor([5, 2])
    x, y = torch.randn(2, 5, 3), None
    y = x.clone(); y[1, 2:] = 1e3
    torch.manual_seed(1); a = reader(x, lengths)
    torch.manual_seed(1); b = reader(y, lengths)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.parametrize("window,num_layers", [(1, 1), (2, 1), (2, 3), (4, 2)])
def test_causal_and_receptive_field(window, num_layers):
    "With its memory cut (f = 0) a stack sees num_layers * (window - 1) words back; with it all the past; never more."
    reader = QRNN(3, 4, window, num_layers=num_layers, forget_bias=0.0).double()
    T = 9
    def seen():
        x = torch.randn(1, T, 3, dtype=torch.float64, requires_grad=True)
        h = reader(x)[0]
        def gradient(t): return torch.autograd.grad(h[0, t].sum(), x, retain_graph=True)[0][0]
        return torch.stack([gradient(t).abs().sum(-1) > 0 for t in range(T)])
    back = torch.arange(T)[:, None] - torch.arange(T)
    assert torch.equal(seen(), back >= 0)
    with torch.no_grad():
        for layer in [reader, *reader.others]: layer.gates.bias[4:8] = -1e4
    assert torch.equal(seen(), (back >= 0) & (back <= num_layers * (window - 1)))


def test_bidirectional_is_a_second_reader_of_the_mirrored_caption():
    reader, lengths = QRNN(3, 4, bidirectional=True), torch.tensor([5, 3])
    x = torch.randn(2, 5, 3)
    states, _ = reader(x, lengths)
    mirrored = torch.zeros_like(x)
    for i, n in enumerate(lengths.tolist()): mirrored[i, :n] = x[i, :n].flip(0)
    back, _ = reader.others[0](mirrored, lengths)
    for i, n in enumerate(lengths.tolist()): torch.testing.assert_close(states[i, :n, 4:], back[i, :n].flip(0))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_reverse_words_is_its_own_inverse(lengths):
    x = torch.arange(len(lengths) * 6 * 2).view(len(lengths), 6, 2)
    lengths = torch.tensor(lengths)
    y = reverse_words(x, lengths)
    assert torch.equal(reverse_words(y, lengths), x)
    for i, n in enumerate(lengths.tolist()):
        assert torch.equal(y[i, :n], x[i, :n].flip(0)) and torch.equal(y[i, n:], x[i, n:])


def test_dense_layers_read_words_and_all_states_below():
    reader, x = QRNN(3, 4, num_layers=3, bidirectional=True, dense=True), torch.randn(2, 5, 3)
    assert [layer.gates.in_channels for layer in [reader, *reader.others]] == [3, 3, 11, 11, 19, 19]
    assert reader(x)[0].shape == (2, 5, 8)                                 # the last layer's states only
    plain = QRNN(3, 4, num_layers=3, bidirectional=True)
    assert [layer.gates.in_channels for layer in [plain, *plain.others]] == [3, 3, 8, 8, 8, 8]


EVERYTHING = dict(num_layers=3, bidirectional=True, layer_norm=True, dense=True, learned_start=True, pooling="ifo",
                  zoneout=0.1)


@pytest.mark.parametrize("options", [{}, EVERYTHING])
def test_every_parameter_learns(options):
    reader = QRNN(3, 4, **options)
    states, summary = reader(torch.randn(2, 5, 3), torch.tensor([5, 4]))
    (states.square().sum() + summary.sum()).backward()
    for name, p in reader.named_parameters(): assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("wrong", [dict(window=0), dict(pooling="of"), dict(zoneout=1.5), dict(num_layers=0)])
def test_impossible_readers(wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=str(value)): QRNN(3, 4, **wrong)


def test_autocast():
    "Half precision in training: states, summary and gradients are finite, and near those of single precision."
    reader = QRNN(8, 16, num_layers=2, bidirectional=True, layer_norm=True, learned_start=True, forget_bias=1.0)
    x = torch.randn(2, 7, 8)
    exact = reader(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16): states = reader(x)[0]
    torch.testing.assert_close(states.float(), exact, rtol=0.1, atol=0.1)
    states.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in reader.parameters())


# ---- what was there before ----

def test_defaults_keep_the_names_of_saved_weights():
    shapes = {name: tuple(p.shape) for name, p in QRNN(5, 4).state_dict().items()}
    assert shapes == {"gates.weight": (12, 5, 2), "gates.bias": (12,)}


@pytest.mark.parametrize("name", ["scenes", "photos"])
def test_bundled_reader(name):
    "The weights in the package are those of a default reader, and it reads with them as the two formulas say."
    model, vocabulary, _ = load_model(WEIGHTS / name)
    ids, lengths = vocabulary.encode(["a small red circle", ""])
    x = model.words(ids).detach()
    with torch.no_grad(): states = model.reader(x, lengths)[0]
    raw = model.reader.gates(torch.nn.functional.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2).detach()
    z, f, o = raw.chunk(3, -1)
    f = f.sigmoid()
    expected = o.sigmoid() * loop(f, (1 - f) * z.tanh(), torch.zeros_like(z[:, 0]))
    torch.testing.assert_close(states[0], expected[0])
    assert (states[1] == 0).all()
