"""One notation: a letter of the index's table means on every page what it means there, wherever a page says what it
means."""
import json
import re
from pathlib import Path

import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"
PAGES = [*sorted(NBS.glob("*.ipynb")), *sorted((NBS / "experiments").glob("*.ipynb"))]
MEANINGS = {  # letter -> words of which one belongs into whatever a page says it is
    "h": ("state",),
    "S": ("state",),
    "K": ("asked", "variables"),
    "D": ("variables",),
    "d": ("given", "variable"),
    "C": ("channel", "feature"),
    "T": ("word", "token", "caption", "length"),
    "L": ("level",),
    "F": ("cdf", "distribution function", "cumulative"),
    r"\\sigma": ("logistic", "sigmoid"),
    "N": ("picture", "batch", "caption"),
}
SAYS = r"\$({letter})(?:_\w|_\{{\w+\}})?\$(?: is| are| =| means|,)? ((?:the|a|an|its|number) [^.;:$]*)"


def statements(text): # -> what the text says of each letter: (letter, words)
    found = []
    for letter in MEANINGS:
        found += [(letter, match[2]) for match in re.finditer(SAYS.format(letter=letter), text)]
    return found


def wrong(text):  # -> the statements that give a letter another meaning
    return [
        (letter, what)
        for letter, what in statements(text)
        if not any(word in what.lower() for word in MEANINGS[letter])
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(NBS).as_posix())
def test_letters_mean_one_thing(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert wrong(text) == []


def test_another_meaning_is_seen():
    assert wrong(r"where $h$ is the height of the hole") == [("h", "the height of the hole")]
    assert (
        wrong(
            r"the state $h_t$ is the state after a word; $\sigma$ is the logistic function; $K$ the variables asked for"
        )
        == []
    )
    assert wrong(r"noise whose $\sigma$ is the standard deviation") != []
