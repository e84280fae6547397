"""docs/method.md names only keys that exist, values that they take, and the presets as they are."""

import re
from pathlib import Path
from typing import get_args

from fedreid_mpi.config import PRESETS, Experiment

PAGE = (Path(__file__).parents[3] / "docs" / "method.md").read_text(encoding="utf-8")
SECTIONS = {
    name: field.annotation for name, field in Experiment.model_fields.items() if name not in ("preset",)
}
KEY = re.compile(r"`(" + "|".join(SECTIONS) + r")\.(\w+)(?: = ([^`]+))?`")


def test_every_key_exists_and_takes_the_value():
    found = KEY.findall(PAGE)
    assert len(found) > 50
    for section, key, value in found:
        fields = SECTIONS[section].model_fields
        assert key in fields, f"{section}.{key}"
        if value.startswith('"'):
            kinds = get_args(fields[key].annotation)
            words = [word for kind in kinds for word in (kind, *get_args(kind))]  # of a union, each one's
            assert value.strip('"') in words, f"{section}.{key} = {value}"


def test_every_key_that_shapes_the_method_is_named():
    named = {(section, key) for section, key, _ in KEY.findall(PAGE)}
    shaping = (
        "federation",
        "optimizer",
        "objective",
        "aggregation",
        "distillation",
        "clustering",
        "evaluation",
    )
    for section in shaping:
        missing = [key for key in SECTIONS[section].model_fields if (section, key) not in named]
        assert missing == [], section


def test_the_table_is_the_presets():
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| (.+?) \| (.+?) \| (.+?) \|", PAGE, re.MULTILINE)
    table = {(section, key): [cell.strip("`") for cell in cells] for section, key, *cells in rows}
    changed = {
        (section, key) for sections in PRESETS.values() for section, keys in sections.items() for key in keys
    }
    assert table == {
        (section, key): [
            written(keys.get(section, {}).get(key, SECTIONS[section].model_fields[key].default))
            for keys in PRESETS.values()
        ]
        for section, key in changed
    }


def written(value):
    """A value as the page writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
