"""The page `try`: the network as graphs, run in the reader's browser. What it needs is put together here."""
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent / "try"
WEIGHTS = "scenes", "photos"
GRAPHS = "manifest.json", "vocabulary.json", "read.onnx", "step.onnx"
RUNTIME = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"   # SIMD, used with one thread
NPM = ["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund", "--silent"]
SEED = 2222                       # of the sample scenes: another one than those that training or validation draws


class Missing(Exception):
    "What this machine lacks for the page, in one sentence."


def fetch_runtime(folder: Path) -> None:
    "onnxruntime-web from npm, the version of package-lock.json, its files copied into a new folder."
    npm = shutil.which("npm")
    if npm is None: raise Missing("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="npm-") as place:
        for name in ("package.json", "package-lock.json"): shutil.copy(HERE / name, place)
        done = subprocess.run([npm, *NPM], cwd=place, capture_output=True, text=True)
        if done.returncode: raise Missing("npm cannot fetch onnxruntime-web")
        folder.mkdir(parents=True)
        package = Path(place) / "node_modules" / "onnxruntime-web"
        for name in RUNTIME: shutil.copy(package / "dist" / name, folder)


def export_graphs(folder: Path, weights: Iterable[str] = WEIGHTS) -> None:
    "A folder for each of the weights."
    try: from my3yearold.export import export
    except ImportError as error: raise Missing(str(error)) from None
    for name in weights:
        try: export(name, folder / name)
        except ImportError as error: raise Missing(str(error)) from None


def samples(n: int = 12) -> list[dict]: # pixels, channel by channel, base64; a box to hide; what the picture shows
    "Scenes with an object hidden: pictures of the kind that the weights `scenes` know."
    from my3yearold.scenes import scenes
    made = scenes(n, seed=SEED)
    def box(i):
        top, left, bottom, right = made.objects[i][0].box
        return [max(0, top - 3), max(0, left - 3), min(64, bottom + 3), min(64, right + 3)]
    return [dict(pixels=base64.b64encode(made.images[i].numpy().tobytes()).decode(), box=box(i),
                 caption=made.captions[i][0]) for i in range(n)]


def assemble(folder: Path, graphs: Path | None = None) -> None: # graphs: a folder of exported ones; None: export them
    "All that the page loads, in a new folder. Missing if this machine cannot make it."
    with tempfile.TemporaryDirectory(prefix="try-") as place:
        new = Path(place) / "try"
        fetch_runtime(new / "ort")
        if graphs is None:
            graphs = Path(place) / "graphs"
            export_graphs(graphs)
        there = [name for name in WEIGHTS if (graphs / name / "step.onnx").is_file()]
        if not there: raise Missing(f"{graphs} holds no exported weights")
        for name in there:
            (new / name).mkdir()
            for one in GRAPHS: shutil.copy(graphs / name / one, new / name)
        for path in [*HERE.glob("*.js"), HERE / "try.css"]: shutil.copy(path, new)
        (new / "pages.json").write_text(json.dumps(dict(weights=there, samples=samples())), encoding="utf-8")
        shutil.copytree(new, folder)


def page() -> str: # Markdown
    "The page's text, and its form."
    form = (HERE / "try.html").read_text(encoding="utf-8")
    return f"""# Try it

Paint what is to be filled, say what the picture shows, and watch. The network runs in this page, on your machine: a
picture of your own goes nowhere, and nothing is installed. The first filling fetches some eight megabytes.

```{{raw}} html
{form}
```

The picture has 64x64 pixels, and the chain is that of [25_inpaint](25_inpaint.ipynb): half of its evaluations fill the
hole in a spread order ([16_ancestral](16_ancestral.ipynb)), the others redraw small blocks of it
([19_gibbs](19_gibbs.ipynb)). *Guidance* says how loud the caption is ([21_guidance](21_guidance.ipynb)), *temperature*
0 takes the middle of each distribution and 1 draws from all of it ([15_sampling](15_sampling.ipynb)). How the network
came here is told in [export](export.ipynb).
"""
