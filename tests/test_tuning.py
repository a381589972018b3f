"""A search for settings: workers that share a storage, one of which is killed; what is pruned, crashed, interrupted,
gone on with; and a sentence for each space or storage that is none."""
import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="a search trains, which needs the train extra")
optuna = pytest.importorskip("optuna", reason="a search needs the search extra")
from my3yearold import tuning as module
from my3yearold import training
from my3yearold.cli import main
from my3yearold.config import TrainConfig
from my3yearold.spaces import SPACES, distribution, read_space, settings
from my3yearold.tuning import (by_tenths, claim_of, counted, importance, make_sampler, open_study, outcomes, scatter,
                               search)

TINY = TrainConfig(size=16, num_scenes=64, num_valid=4, scored=90, batch_size=4, widths=(8, 16), blocks=(1, 1),
                   max_steps=8, validate_every=4, warmup=2, precision="float32", device="cpu", compile="no")
FLAGS = ("--size 16 --num-scenes 64 --num-valid 4 --scored 90 --batch-size 4 --widths 8 16 --blocks 1 1 --max-steps 8 "
         "--validate-every 4 --warmup 2 --precision float32 --device cpu --compile no").split()
RATES = dict(learning_rate=dict(low=1e-4, high=1e-2, log=True), head=["smooth", "adaptive"])


@pytest.fixture
def base(tmp_path): return replace(TINY, run=str(tmp_path / "search"))


@pytest.fixture
def space(tmp_path):
    "space(...) -> the name of a file with these settings."
    def write(**values):
        (tmp_path / "space.json").write_text(json.dumps(values or RATES))
        return str(tmp_path / "space.json")
    return write


@pytest.fixture
def learner(monkeypatch):
    """learner(figures): a training that validates as often as `figures(config)` says; what is an error is raised
    there. Returns the configurations that it has seen."""
    seen = []
    def pretend(figures):
        def train(config, resume=False, own=None):
            seen.append((config, resume))
            folder, told = Path(config.run), figures(config)
            folder.mkdir(parents=True, exist_ok=True)
            for i, figure in enumerate(told, 1):
                if isinstance(figure, BaseException): raise figure
                row = dict(step=config.max_steps * i // len(told), minutes=0.1, valid=figure)
                assert own.figure(None, row) == figure
                with open(folder / "log.csv", "a", newline="") as file:
                    if i == 1: csv.writer(file).writerow(row)
                    csv.writer(file).writerow(row.values())
            return folder
        monkeypatch.setattr(module, "train", train)
        return seen
    return pretend


def quiet(*words): return None


# --- workers

KILLED = """
import sys, time
from my3yearold import training
from my3yearold.cli import main
save = training.save_checkpoint
def stuck(*arguments):
    save(*arguments)
    print("saved", flush=True)
    time.sleep(300)
training.save_checkpoint = stuck
sys.exit(main())
"""


def test_one_of_two_workers_is_killed_and_the_search_ends_complete(tmp_path, space):
    "Its trial is found, and its run goes on from the checkpoint that it left; nothing is trained twice or left out."
    words = ["search", *FLAGS, "--space", space(), "--trials", "4", "--run", str(tmp_path / "search")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    def start(program):
        return subprocess.Popen([sys.executable, "-c", program, *words], env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    killed = start(KILLED)
    try:
        assert killed.stdout.readline() == "saved\n"
        other = start("import sys; from my3yearold.cli import main; sys.exit(main())")
        assert other.stdout.readline().startswith("trial 1: ")   # the first is in the hands of the other worker
    finally: killed.kill()
    killed.communicate()
    said = other.communicate(timeout=300)[0]
    assert other.returncode == 0 and "4 finished, 0 pruned, 0 crashed; best" in said
    study = open_study(tmp_path / "search")
    assert len(counted(study)) == 4 and {trial.state.name for trial in counted(study)} == {"COMPLETE"}
    assert study.user_attrs["lost"] == [0] and [trial.state.name for trial in study.trials].count("RUNNING") == 0
    [again] = [trial for trial in counted(study) if trial.user_attrs["run"] == "trial-00000"]
    assert again.params == study.trials[0].params and again.number > 0
    noted = (tmp_path / "search" / "trial-00000" / "provenance.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in noted] == [0, 4]


def test_a_trial_at_work_is_left_alone_by_the_next_worker(base, space):
    "Who finds all taken waits until they are over; a claim that is held is a worker that lives."
    from filelock import FileLock
    Path(base.run).mkdir()
    study = open_study(Path(base.run))
    study.ask({}).set_user_attr("run", "trial-00000")
    with FileLock(claim_of(Path(base.run), "trial-00000")): module.retry_lost(study, Path(base.run))
    assert [trial.state.name for trial in study.trials] == ["RUNNING"]
    module.retry_lost(study, Path(base.run))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"] and counted(study) == []


# --- going on

def test_it_goes_on_and_draws_the_same_whoever_draws(base, space, learner, tmp_path):
    learner(lambda config: [5.0, 4.0])
    whole = search(base, space(), 5, "random", tell=quiet)
    parts = replace(base, run=str(tmp_path / "parts"))
    for trials in (2, 2, 5): study = search(parts, space(), trials, "random", tell=quiet)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]
    assert len(counted(study)) == 5 and len({trial.params["learning_rate"] for trial in study.trials}) == 5
    with pytest.raises(ValueError, match="begun with another space, which differs in head: go on with that"):
        search(parts, space(learning_rate=RATES["learning_rate"]), 6, tell=quiet)
    with pytest.raises(ValueError, match="begun with another max_steps: go on with that"):
        search(replace(parts, max_steps=9), space(), 6, tell=quiet)
    noted = study.user_attrs["search"]
    noted["common"].pop("zoneout")             # begun by a version that had no such setting
    study.set_user_attr("search", noted)
    assert len(search(parts, space(), 5, "random", tell=quiet).trials) == 5


@pytest.mark.parametrize("storage", ["{}/trials.journal", "sqlite:///{}/elsewhere.db"])
def test_other_storages(base, space, learner, tmp_path, storage):
    learner(lambda config: [4.0])
    where = storage.format(tmp_path)
    assert len(counted(search(base, space(), 2, storage=where, tell=quiet))) == 2
    assert len(counted(search(base, space(), 3, storage=where, tell=quiet))) == 3
    assert not (Path(base.run) / "search.db").exists()


def test_tpe_looks_at_what_is_over(base, space, learner):
    "After its ten random trials it draws near the best: closer than random draws do, at these seeds."
    learner(lambda config: [abs(config.learning_rate - 3e-4) * 1e3 + 1])
    study = search(base, space(learning_rate=dict(low=1e-4, high=1e-1, log=True)), 25, prune=False,
                   storage=base.run + ".journal", tell=quiet)
    rates = [trial.params["learning_rate"] for trial in study.trials]
    assert sum(rate < 2e-3 for rate in rates[10:]) >= 10 > sum(rate < 2e-3 for rate in rates[:10])


# --- what goes wrong

def test_crashed_runs_are_recorded_and_the_search_goes_on(base, space):
    "A real training: a merger at a place that the trunk has not."
    told = []
    study = search(base, space(merge_at=[[9], [0]]), 4, "random", tell=told.append)
    kinds = {kind: len(found) for kind, found in outcomes(study).items()}
    assert kinds["finished"] and kinds["crashed"] and kinds["finished"] + kinds["crashed"] == 4
    for trial in study.trials:
        assert (trial.state.name == "FAIL") == (trial.params["merge_at"] == "[9]")
        if trial.state.name == "FAIL": assert "there is no place 9 to merge the caption at" in trial.user_attrs["why"]
    assert sum(": crashed: there is no place 9" in line for line in told) == kinds["crashed"] and len(told) == 4


@pytest.mark.parametrize("error, words", [
    (FloatingPointError("the loss is nan"), "the loss is nan"),
    (MemoryError(), "the memory does not suffice"),
    (KeyError("x"), "a fault of the program (KeyError: 'x')")])
def test_any_fault_of_a_run_is_a_sentence(base, space, learner, error, words):
    learner(lambda config: [5.0, error])
    study = search(base, space(), 2, tell=quiet)
    assert [words in trial.user_attrs["why"] for trial in study.trials] == [True, True]


@pytest.mark.parametrize("error", [
    FileNotFoundError("there is no data"), ImportError("no accelerate"), OSError(28, "No space left on device"),
    KeyboardInterrupt("saved at step 4")])
def test_what_would_hit_all_runs_ends_the_search(base, space, learner, error):
    "The trial at hand is given back: the next worker tries the same settings in the same folder."
    seen = learner(lambda config: [error] if len(seen) == 2 else [5.0])
    with pytest.raises(type(error)): search(base, space(), 3, "random", tell=quiet)
    study = open_study(Path(base.run))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "WAITING"]
    study = search(base, space(), 3, "random", tell=quiet)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == study.trials[2].params and seen[1][0].run == seen[2][0].run
    assert outcomes(study)["crashed"] == []


def test_an_interrupted_search_ends_with_130(base, space, learner, capsys):
    learner(lambda config: [KeyboardInterrupt("saved at step 4")])
    assert main(["search", *FLAGS, "--space", space(), "--run", base.run]) == 130
    assert capsys.readouterr().err == "my3yearold: the search was stopped; the same command goes on with it\n"


# --- pruning

def test_what_does_worse_than_the_others_is_pruned(base, space, learner):
    "At the same share of the budget, once four have finished and three tenths are over."
    def figures(config): # the fifth is bad all along, the sixth at the end only, the seventh good
        number = int(config.run[-5:])
        return {4: [9.0] * 10, 5: [5.0] * 9 + [8.0]}.get(number, [6 - 0.1 * i for i in range(10)])
    seen = learner(figures)
    study = search(base, space(), 7, "random", tell=quiet)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["PRUNED", "COMPLETE", "COMPLETE"]
    bad = study.trials[4]
    assert len(bad.intermediate_values) == 3 and bad.value == 9.0 and len(seen) == 7
    assert outcomes(study)["pruned"] == [(bad.params, 9.0)] and study.trials[5].value == 5.0
    unpruned = search(replace(base, run=base.run + "-all"), space(), 7, "random", prune=False, tell=quiet)
    assert {trial.state.name for trial in unpruned.trials} == {"COMPLETE"}


def test_a_training_is_watched_while_it_runs(base, space, monkeypatch):
    "A real one: each validation is reported at the tenth that it ends, and what the watcher raises ends the run."
    study = search(base, space(), 1, tell=quiet)
    [trial] = study.trials
    reported = [trial.intermediate_values[tenth] for tenth in range(1, 11)]
    assert trial.value == pytest.approx(min(reported), rel=1e-4)
    assert len(set(reported[:5])) == 1                                            # after step 4 of 8: five tenths
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: True)
    pruned = search(base, space(), 2, tell=quiet).trials[1]
    assert pruned.state.name == "PRUNED" and max(pruned.intermediate_values) == 5


def test_tenths():
    rows = [dict(step="10", minutes="1", valid="5"), dict(step="25", minutes="6", valid="6"),
            dict(step="100", minutes="8", valid="4")]
    by_steps, by_minutes = TrainConfig(max_steps=100), TrainConfig(max_steps=1000, max_minutes=10)
    assert by_tenths(rows, by_steps) == dict.fromkeys([1, 2], 5.0) | dict.fromkeys(range(3, 11), 4.0)
    assert by_tenths(rows, by_minutes) == dict.fromkeys(range(1, 7), 5.0) | {7: 4, 8: 4}
    assert by_tenths([], TrainConfig()) == {}


# --- spaces, storages, samplers that are none

WRONG = [
    (dict(colour=["red"]), "has 'colour', which is no setting to search over; remove it"),
    (dict(run=["a", "b"]), "has 'run', which is no setting to search over"),
    (dict(layers=dict(low=4, high=0)), "layers is no range"),
    (dict(layers=dict(low=1, high=2.5)), "layers has whole numbers"),
    (dict(learning_rate=dict(low=0, high=1, log=True)), "learning_rate is no range"),
    (dict(head=dict(low=1, high=2)), "head is a range, and the field holds no number"),
    (dict(dense=dict(low=0, high=1)), "dense is a range, and the field holds no number"),
    (dict(head=["adaptive", "magic"]), "head is 'magic'; use adaptive"),
    (dict(batch_size=dict(low=0, high=4)), "batch_size is 0; use"),
    (dict(ema=dict(low=0.9, hgih=1)), "mend it or write it again"),
    (dict(layers=[]), "mend it or write it again"),
    (dict(layers=3), "mend it or write it again"),
]


@pytest.mark.parametrize("values, words", WRONG, ids=str)
def test_a_space_that_is_none_is_one_sentence(base, space, capsys, values, words):
    assert main(["search", *FLAGS, "--space", space(**values), "--run", base.run]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert words in said and not Path(base.run).exists()


@pytest.mark.parametrize("flags, words", [
    (["--space", "nowhere.json"], "there is no space nowhere.json; use 2017, ours, or a JSON file of one"),
    (["--storage", "trials.txt"], "is neither a file NAME.journal nor an address"),
    (["--storage", "nonsense://x"], "the storage nonsense://x cannot be opened"),
    (["--storage", "/nowhere/at/all.journal"], "the storage /nowhere/at/all.journal cannot be opened"),
    (["--storage", "sqlite:////nowhere/at/all.db"], "cannot be opened"),
    (["--batch-size", "0"], "batch_size is 0; use"),
    (["--device", "cuda:99"], "there is no device cuda:99 here")])
def test_a_search_that_cannot_be_begun_is_one_sentence(base, space, capsys, flags, words):
    words_before = ["search", *FLAGS, "--space", space(), "--run", base.run]
    assert main([*words_before, *flags]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("my3yearold: ") and words in said


def test_a_damaged_table_is_one_sentence(base, space, capsys):
    Path(base.run).mkdir()
    (Path(base.run) / "search.db").write_text("I am no table" * 100)
    assert main(["search", *FLAGS, "--space", space(), "--run", base.run]) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert "search.db cannot be opened" in said


def test_refused(base, space, monkeypatch, tmp_path, capsys):
    with pytest.raises(ValueError, match="there is no sampler 'grid'"): search(base, space(), 1, "grid")
    training.train(replace(TINY, run=str(tmp_path / "run"), max_steps=1))
    with pytest.raises(ValueError, match="holds a run; choose another folder"):
        search(replace(base, run=str(tmp_path / "run")), space(), 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    capsys.readouterr()
    assert main(["search", "--run", base.run]) == 2
    assert "workers of a search are started one by one" in capsys.readouterr().err
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["search", "--run", base.run]) == 2
    assert 'pip install "my3yearold[search]"' in capsys.readouterr().err


@pytest.mark.parametrize("name", SPACES)
def test_spaces_of_the_package_make_networks(name):
    "Each draw is a configuration that could be run."
    study, size = optuna.create_study(), replace(TrainConfig(), num_scenes=64)
    draw, wanted = make_sampler("random", 0), read_space(name, size)
    kinds = {key: distribution(values, getattr(size, key), key) for key, values in wanted.items()}
    for number in range(20):
        study.sampler = draw(number)
        training.check(replace(size, **settings(study.ask(kinds).params, wanted)))


# --- what is shown

def test_what_is_shown(base, space, learner, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="figures need the notebooks extra")
    pytest.importorskip("sklearn", reason="the importance needs the search extra")
    def figures(config): # only the head matters; three are bad, and one is no number
        if int(config.run[-5:]) == 6: return [FloatingPointError("the loss is nan")]
        return [5.0 + (config.head == "smooth") * 2.0 + 1e-3 * int(config.run[-5:])] * 10
    learner(figures)
    words = ["search", *FLAGS, "--space", space(), "--run", base.run, "--trials", "12", "--sampler", "random"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    study = open_study(Path(base.run))
    found = outcomes(study)
    assert sum(map(len, found.values())) == 12 and len(found["crashed"]) == 1 and found["pruned"]
    counts = ", ".join(f"{len(trials)} {kind}" for kind, trials in found.items())
    assert len(printed) == 14 and printed[12].startswith(f"{counts}; best 5.") and "--weights" in printed[12]
    assert printed[13].startswith(f"importance (fANOVA over {len(found['finished'])} runs): head 0.")
    assert list(importance(study)) == ["head", "learning_rate"] and importance(study)["head"] > 0.7
    figure = scatter(study)
    assert [axis.get_xlabel() for axis in figure.axes] == ["learning_rate", "head"]
    shown = [len(points.get_offsets()) for points in figure.axes[0].collections]
    assert shown == [len(found[kind]) for kind in ("finished", "pruned", "crashed")]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{kind} ({number})" for kind, number in zip(("finished", "pruned", "crashed"), shown)]
    pyplot.close("all")
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["finished"] == shown[0] and told["best"] == study.best_value and told["params"]["head"] == "adaptive"


def test_nothing_finished(base, space, learner, capsys):
    learner(lambda config: [ValueError("never")])
    assert main(["search", *FLAGS, "--space", space(), "--run", base.run, "--trials", "2"]) == 2
    spoken = capsys.readouterr()
    assert "no run of the search in" in spoken.err and spoken.out.count("crashed: never") == 2
    assert importance(open_study(Path(base.run))) == {}


def test_without_the_extra_the_remedy_is_told(base, monkeypatch, capsys):
    "The command and the function, whatever else would have wanted optuna first; nothing is made."
    import builtins
    honest = builtins.__import__
    def missing(name, *rest, **more):
        if name.split(".")[0] == "optuna": raise ModuleNotFoundError("No module named 'optuna'", name="optuna")
        return honest(name, *rest, **more)
    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert main(["search", *FLAGS, "--run", base.run]) == 2
    assert 'pip install "my3yearold[search]"' in capsys.readouterr().err
    assert not os.path.exists(base.run)
