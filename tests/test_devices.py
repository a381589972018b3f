"""What a training step asks of a device: nothing that it would have to wait for; one graph; the same questions, and the
same weights, as the plain way."""
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

pytest.importorskip("accelerate", reason="training is tested with the train extra installed")
from my3yearold import batches, training
from my3yearold.batches import Examples, ScoredLoss, decide, questions, scored_loss, shares
from my3yearold.captions import Vocabulary
from my3yearold.chance import Keyed, keyed, uniform_rows, uniforms
from my3yearold.config import preset
from my3yearold.data import CaptionedImages, load_data
from my3yearold.devices import Pretended, engine, pick_precision
from my3yearold.masks import MASKS, mixture, orderless
from my3yearold.model import OrderlessNADE
from my3yearold.resuming import begin
from my3yearold.runs import Journal
from my3yearold.training import Own, Run, TrainConfig, check, make_learner, train

TINY = TrainConfig(precision="float32", size=16, num_scenes=64, widths=(16, 24), blocks=(1, 1), batch_size=4,
                   max_steps=6, warmup=2, validate_every=3, num_valid=8, scored=90, device="cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")


def run_of(config, folder): # a run that has not begun
    config = replace(config, run=str(folder))
    data, unseen = (load_data("scenes", split, 16, 64) for split in ("train", "valid"))
    folder.mkdir()
    config, model, vocabulary = begin(config, data)
    accelerator = engine(config)
    learner = make_learner(config, model, vocabulary, accelerator.device)
    journal = Journal(config, folder, learner.state, accelerator, lambda step: [])
    examples, unseen = (Examples(part, vocabulary, accelerator.device) for part in (data, unseen))
    return Run(config, learner, examples, unseen, accelerator, journal)


# ---- numbers that follow from a key ----

def splitmix(key, place): # in Python's own integers
    z = (key + (place + 1) * 0x9E3779B97F4A7C15) % 2 ** 64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2 ** 64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2 ** 64
    return ((z ^ z >> 31) >> 11) / 2 ** 53


def test_keyed_numbers_are_splitmix64s():
    keys = [0, 1, -1, 2 ** 63 - 1, -2 ** 63, 123456789]
    chance = Keyed(torch.tensor(keys))
    found = torch.cat([chance.rows(2), chance.rows(1), chance[:].rows(3)], 1)
    assert found.tolist() == [[splitmix(key % 2 ** 64, place) for place in range(6)] for key in keys]
    assert Keyed(torch.tensor([0])).rows(1).item() == (0xE220A8397B1DCDAF >> 11) / 2 ** 53     # its authors' first


def test_the_keys_of_a_step_are_written_down():
    "Runs go on from where they were stopped, so they may never change."
    assert keyed(3, 41, torch.arange(2), "step").keys.tolist() == STEP_41


STEP_41 = [5220962774152220216, -5396526833284476307]


def test_keyed_chance_is_a_chance_like_others():
    chance, again = (keyed(0, 1, torch.arange(3)) for _ in range(2))
    where = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    assert torch.equal(uniforms(where, chance), again.rows(3)[where])
    with pytest.raises(ValueError, match="3 generators for 2 pictures"): uniform_rows(2, 4, chance)
    kinds = ",".join(MASKS)
    whole = mixture(30, 8, kinds, keyed(0, 2, torch.arange(30)))
    assert torch.equal(mixture(10, 8, kinds, keyed(0, 2, torch.arange(20, 30))), whole[20:])
    with pytest.raises(ValueError, match="stratified draws depend on the whole batch"):
        orderless(3, 8, keyed(0, 1, torch.arange(3)), stratified=True)


# ---- nothing waits ----

@pytest.mark.parametrize("change", [
    dict(), dict(masks=",".join(MASKS), batch_size=60, flip=0.5), dict(weighting="batch", given_too=True),
    dict(optimiser="muon"), dict(accumulate=2), dict(loss="emd2"), dict(stratified=False)], ids=str)
def test_a_step_neither_reads_nor_copies(tmp_path, change):
    "The whole of it: questions, network, loss, clipping, optimiser, average; one table goes in for each round."
    run = run_of(replace(TINY, **change), tmp_path / "run")
    training.one_step(run, 0.0)                                    # what is made once is made
    gpu, sent, honest = Pretended(), [], batches.send
    def send(x, device):
        sent.append(honest(x, device).clone())
        gpu.put(sent[-1])
        return sent[-1]
    gpu.put(run.examples.images, *(x for net in (run.learner.model, run.learner.average)
                                   for x in (*net.parameters(), *net.buffers())))
    for moments in run.learner.optimiser.state.values(): gpu.put(*(x for x in moments.values() if x.dim()))
    def outside(config, examples, step):
        with torch._C.DisableTorchFunction(): return decide(config, examples, step)
    with patch.object(batches, "send", send), patch.object(training, "decide", outside), gpu:
        training.one_step(run, 0.0)
    run.journal.close()
    assert (gpu.waits, gpu.uploads, len(sent)) == ([], [], run.config.accumulate)


@pytest.mark.parametrize("call, told", [
    (lambda x: x.sum().item(), "item"), (lambda x: x.tolist(), "tolist"), (lambda x: bool(x.any()), "__bool__"),
    (lambda x: x[x > 0], "__getitem__"), (lambda x: x.nonzero(), "nonzero"), (lambda x: torch.where(x > 0), "where"),
    (lambda x: x[[0, 1]], "__getitem__"), (lambda x: float(x[0, 0]), "__float__")])
def test_what_waits_is_noticed(call, told):
    x = torch.rand(3, 3)
    with Pretended() as gpu:
        gpu.put(x)
        call(x * 2)
    assert gpu.waits == [told]


def test_what_is_copied_in_is_noticed():
    x = torch.rand(3, 3)
    away = torch.rand(3)
    with Pretended() as gpu:
        gpu.put(x)
        y = x + torch.arange(3, device=x.device)
        torch.tensor([1.0, 2.0], device=y.device)
        y = y * away
    assert (gpu.uploads, gpu.waits) == (["tensor", "mul"], [])


@CUDA
def test_a_step_never_synchronises(tmp_path):
    run = run_of(replace(TINY, device="cuda", masks=",".join(MASKS), batch_size=60, flip=0.5), tmp_path / "run")
    training.one_step(run, 0.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3): training.one_step(run, 0.0)
    finally: torch.cuda.set_sync_debug_mode("default")


@CUDA
def test_a_gpu_asks_what_a_cpu_asks():
    data = load_data("scenes", "train", 16, 64)
    config, vocabulary = replace(TINY, batch_size=60, masks=",".join(MASKS)), Vocabulary.build(data.captions)
    asked = [questions(config, examples, decide(config, examples, 3)) for examples in
             (Examples(data, vocabulary, torch.device(name)) for name in ("cpu", "cuda"))]
    different = (asked[0].given != asked[1].given.cpu()).flatten(1).any(1).sum()
    assert different <= 1 and all(torch.equal(a, b.cpu()) for a, b in zip(asked[0][2:4], asked[1][2:4]))


# ---- one graph ----

def test_an_epoch_of_captions_of_all_lengths_is_one_graph():
    "Forward and backward, without a break; the longest caption and the empty one among them."
    words = ["word"] * 40
    captions = [[" ".join(words[:length])] if length else [] for length in range(32)]
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    vocabulary = Vocabulary.build(captions, 1)
    examples = Examples(CaptionedImages(images, captions, list(map(str, range(32)))), vocabulary, torch.device("cpu"))
    config = replace(TINY, flip=0.5, masks=",".join(MASKS), batch_size=8, caption_dropout=0.0)
    net = ScoredLoss(OrderlessNADE(len(vocabulary), 16, widths=(8, 16), blocks=(1, 1)), low=True)
    counter, lengths = CompileCounterWithBackend("aot_eager"), set()
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    for step in range(4):
        asked = questions(config, examples, decide(config, examples, step))
        (compiled(*asked[:6]) * asked.counts).sum().backward()
        lengths |= set(asked.lengths.tolist())
    assert counter.frame_count == 1 and lengths == set(range(32))


def test_graphs_refuse_rounds():
    with pytest.raises(ValueError, match="2 rounds would overwrite each other"):
        check(replace(TINY, compile="graphs", accumulate=2))


# ---- the same weights ----

def test_twenty_steps_end_where_the_plain_ones_do(tmp_path):
    "The loop written down plainly, asked the same: a dense softmax of what is scored, one optimiser, no wrapping."
    config = replace(TINY, max_steps=20, batch_size=8)
    run = run_of(config, tmp_path / "run")
    plain = OrderlessNADE(**run.learner.model.config)
    plain.load_state_dict(run.learner.model.state_dict())
    adam = torch.optim.AdamW(plain.parameters(), betas=(0.9, 0.99), weight_decay=config.weight_decay)
    for step in range(20):
        asked = questions(config, run.examples, decide(config, run.examples, step))
        adam.param_groups[0]["lr"] = training.learning_rate(step, step / 20, config)
        adam.zero_grad()
        share = shares(~asked.given, "image")
        sum(one * scored_loss(plain, *(x[i:i + 1] for x in asked[:6])).sum() for i, one in enumerate(share)).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), config.clip, foreach=False)
        adam.step()
        training.one_step(run, step / 20)
    run.journal.close()
    for (name, a), b in zip(plain.named_parameters(), run.learner.model.parameters()):
        assert (a - b).abs().max() < 1e-5, name


# ---- precision ----

def test_each_precision_is_where_it_is_said_to_be(tmp_path):
    "Weights, gradients and moments in float32; the trunk's products in bfloat16; logits and costs in float32."
    run = run_of(replace(TINY, precision="bfloat16"), tmp_path / "run")
    seen = {}
    def watch(name): return lambda module, inputs, output: seen.update({name: output.dtype})
    model = run.learner.model
    for name, part in model.named_modules():
        if isinstance(part, torch.nn.Conv2d): part.register_forward_hook(watch("convolution"))
    model.head.register_forward_hook(watch("logits"))
    run.cost.register_forward_hook(watch("cost"))
    training.one_step(run, 0.0)
    run.journal.close()
    assert seen == dict(convolution=torch.bfloat16, logits=torch.float32, cost=torch.float32)
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert pick_precision("float32", "cuda") == "float32" and pick_precision("auto", "mps") == "float32"


# ---- what a caller brings ----

def made_of_few(words): return OrderlessNADE(words, 16, widths=(8, 8), blocks=(1, 1))


def test_own_data_network_and_figure(tmp_path):
    data = tuple(load_data("scenes", split, 16, 40) for split in ("train", "valid"))
    words, asked = len(Vocabulary.build(data[0].captions, TINY.min_count)), []
    def figure(model, figures):
        asked.append((figures["step"], figures["valid"], sum(p.numel() for p in model.parameters())))
        return -figures["step"]                                    # later is better
    own = Own(data, made_of_few, figure)
    config = replace(TINY, run=str(tmp_path / "run"), data=("nowhere",))
    train(config, own=own)
    assert [step for step, _, _ in asked] == [3, 6]
    assert {count for _, _, count in asked} == {sum(p.numel() for p in made_of_few(words).parameters())}
    train(replace(config, max_steps=9), resume=True, own=own)
    assert asked[-1][0] == 9
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert rows[0].endswith(",figure") and rows[-1].endswith(",-9")


def test_what_a_figure_raises_ends_the_run(tmp_path):
    class Enough(Exception): pass
    def figure(model, figures): raise Enough
    with pytest.raises(Enough): train(replace(TINY, run=str(tmp_path / "run")), own=Own(figure=figure))


def test_the_best_weights_are_chosen_by_a_figure_that_sees_captions(tmp_path):
    "What `valid` costs changes with the captions of the held-out pictures."
    run = run_of(TINY, tmp_path / "run")
    run.journal.close()
    lengths = torch.cat([asked.lengths for asked in run.exams["valid"]])
    assert (lengths > 0).all() and (torch.cat([asked.lengths for asked in run.exams["valid_no_caption"]]) == 0).all()


# ---- the preset ----

def test_a_preset_is_refined_by_flags(monkeypatch, tmp_path, capsys):
    from my3yearold import training as module
    from my3yearold.cli import main
    asked = []
    monkeypatch.setattr(module, "train", lambda config, *rest: asked.append(config) or tmp_path)
    assert main(["train", "--preset", "gpu", "--max-minutes", "3"]) == 0
    assert main(["train", "--run", str(tmp_path)]) == 0
    gpu, default = asked
    assert (gpu.batch_size, gpu.max_minutes, gpu.validate_every) == (256, 3.0, 2000) and default.batch_size == 8
    assert abs(gpu.learning_rate / default.learning_rate - (gpu.batch_size / default.batch_size) ** 0.5) < 1e-12
    with pytest.raises(SystemExit): main(["train", "--preset", "abacus"])
    assert "invalid choice: 'abacus'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown preset 'abacus'; there is 'gpu'"): preset("abacus")
