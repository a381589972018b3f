"""A Sphinx extension: docments, which are comments behind the parameters of a signature, as lists of parameters."""
import dataclasses
import inspect
import re
from typing import Any, get_type_hints

from fastcore.docments import docments
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

SKIPPED = ("self", "cls")


def as_rst(text: str) -> str:
    "Markdown's `code` as reStructuredText's; whatever else means something there is escaped."
    def rewritten(found):
        if not found[1]: return "\\" + found[0]
        left, right = text[found.start() - 1:found.start()], text[found.end():found.end() + 1]
        code = f"``{' '.join(found[1].split())}``"
        return "\\ " * left.isalnum() + code + "\\ " * right.isalnum()      # or `bind`ed would not end
    return re.sub(r"`([^`]+)`|[*|_`\\]", rewritten, text)


def type_name(annotation: Any) -> str: # without what msgspec checks of it
    holder = type("Holder", (), {"__annotations__": {"it": annotation}})
    if not isinstance(annotation, str): annotation = get_type_hints(holder)["it"]        # no Annotated, however deep
    return stringify_annotation(annotation, "smart")


def helps(thing: Any) -> dict[str, str]: # field -> its help, of a dataclass whose fields carry one
    if not dataclasses.is_dataclass(thing): return {}
    return {field.name: field.metadata["help"] for field in dataclasses.fields(thing) if "help" in field.metadata}


def fields_of(thing: Any) -> dict[str, dict[str, Any]]: # field -> its comment and type, of a NamedTuple or a Struct
    "What docments knows of dataclasses only."
    names = getattr(thing, "_fields", ()) or getattr(thing, "__struct_fields__", ())
    if not inspect.isclass(thing) or not names: return {}
    comments = dict(re.findall(r"^ +(\w+):[^#\n]*#\s*(.*)", inspect.getsource(thing), re.MULTILINE))
    return {name: {"docment": comments.get(name), "anno": get_type_hints(thing).get(name)} for name in names}


def field_list(thing: Any) -> list[str]:
    "What a function or class takes and returns, as Sphinx's field list."
    said, lines = helps(thing), []
    for name, about in (fields_of(thing) or docments(thing, full=True, returns=True)).items():
        if name in SKIPPED or name == "return" and inspect.isclass(thing): continue
        words = as_rst(" ".join(str(about["docment"] or said.get(name) or "").split()))
        known = about["anno"] not in (inspect.Parameter.empty, None)
        what, its_type = ("returns", "rtype") if name == "return" else (f"param {name}", f"type {name}")
        if words or name != "return": lines.append(f":{what}: {words}")
        if known: lines.append(f":{its_type}: {type_name(about['anno'])}")
    return lines


def process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    "Rewrites a docstring in place, with its parameters below it."
    text, made = "\n".join(lines), getattr(thing, "__name__", "") + "("
    lines[:] = [] if text.startswith(made) else as_rst(text).splitlines()      # dataclasses write one of their own
    is_error = inspect.isclass(thing) and issubclass(thing, BaseException)
    if what in ("function", "method", "class") and not is_error: lines += ["", *field_list(thing), ""]


def skip(app: Sphinx, what: str, name: str, thing: Any, is_skipped: bool, options: Any) -> bool | None:
    "Constants, and fields of classes, which are listed as parameters, have no entry of their own."
    return None if callable(thing) or isinstance(thing, (property, classmethod, staticmethod)) else True


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
