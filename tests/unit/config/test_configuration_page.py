"""docs/configuration.md is made from the models that check an experiment; `make pages` renews it."""

import re
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import tomli_w
from pydantic_core import PydanticUndefined

from fedreid_mpi.config import PRESETS, Experiment

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

WORDS = {"Path": "path", "str": "text", "int": "integer", "float": "number", "bool": "true or false"}
LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def number(limit):
    """Write a limit; large powers of two as such."""
    return f"2^{limit.bit_length() - 1}" if limit in (2**31, 2**63) else f"{limit:g}"


def limits(metadata):
    found = [
        f"{sign} {number(getattr(item, name))}"
        for item in metadata
        for name, sign in LIMITS.items()
        if getattr(item, name, None) is not None
    ]
    return " " + ", ".join(found) if found else ""


def kind(annotation, metadata=()):
    """Say in words what a value may be."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin is Literal:
        return " or ".join(
            f"`{value if isinstance(value, int) else chr(34) + value + chr(34)}`" for value in arguments
        )
    if origin in (Union, types.UnionType):
        return kind(next(each for each in arguments if each is not type(None)), metadata)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {kind(arguments[0])}"
        same = len(set(map(str, arguments))) == 1
        return (
            f"{len(arguments)} × {kind(arguments[0])}"
            if same
            else "[" + ", ".join(map(kind, arguments)) + "]"
        )
    if origin is dict:
        return f"table: name to {kind(arguments[1])}"
    return WORDS[annotation.__name__] + limits(metadata)


def _flat(metadata):
    return [inner for item in metadata for inner in (item.metadata if hasattr(item, "metadata") else [item])]


def value(default):
    if default is PydanticUndefined:
        return "must be given"
    if default is None:
        return "unset"
    if default == {}:
        return "`{}`"
    text = " ".join(tomli_w.dumps({"x": default}).removeprefix("x = ").split())  # long lists on one line
    return "`" + text.replace("[ ", "[").replace(", ]", "]").replace(",]", "]") + "`"


def tables():
    """The generated part of the page."""
    lines = []
    for name, field in Experiment.model_fields.items():
        if name == "preset":
            continue
        section = field.annotation
        lines += ["", f"## `[{name}]`", "", section.__doc__.partition("\n")[0].replace("``", "`"), ""]
        lines += ['<div class="keys" markdown>', ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        for key, entry in section.model_fields.items():
            default = value(_plain(entry.default))
            if key in PRESETS["published"].get(name, {}):
                default += f"; published {value(PRESETS['published'][name][key])}"
            said = (entry.description or "").replace("|", "\\|")
            lines.append(f"| `{key}` | {kind(entry.annotation, entry.metadata)} | {default} | {said} |")
        lines += ["", "</div>"]
    return "\n".join(lines).strip() + "\n"


def _plain(default):
    return list(default) if isinstance(default, tuple) else default


def renewed(page):
    head = page.partition("<!-- generated -->")[0]
    return head + "<!-- generated -->\n\n" + tables()


def test_the_page_lists_every_key_as_it_is(generated):
    generated(PAGE, renewed)


def test_every_key_is_described():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.*) \|$", tables(), flags=re.MULTILINE)
    assert len(rows) == sum(
        len(field.annotation.model_fields)
        for name, field in Experiment.model_fields.items()
        if name != "preset"
    )
    assert [key for key, *_, said in rows if len(said) < 10] == []
