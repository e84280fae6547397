"""docs/commands.md is made from the commands' own help; `make pages` renews it."""

import re
from pathlib import Path

import click

from fedreid_mpi.cli import group

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def commands(command, context):
    """Give each command that does something, with its context, in the order of the help."""
    if not isinstance(command, click.Group):
        yield command, context
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        yield from commands(child, click.Context(child, parent=context, info_name=name))


def prose(text):
    """Paragraphs of a help text; what click prints as it stands becomes a block of code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        kept, _, block = paragraph.partition("\b\n")
        if kept.strip():
            parts.append(" ".join(kept.split()))
        if block:
            lines = block.splitlines()
            margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
            parts.append("\n".join(["```text", *(line[margin:].rstrip() for line in lines), "```"]))
    return parts


def row(option, context):
    """Give the names of an option, and its help, in which what it may be comes before its default."""
    names, said = option.get_help_record(context)
    said = " ".join(said.split()).replace("|", "\\|")
    names = names.replace(" RANGE", "")
    if isinstance(option.type, click.Choice):
        names = re.sub(r" \[.*\]", "", names)
        meaning, bracket, rest = said.partition(" [")
        choices = ", ".join(f"`{choice}`" for choice in option.type.choices)
        said = f"{meaning} One of {choices}.{bracket}{rest}"
    said = re.sub(r" \[", r" \\[", said)  # nothing of this is the name of a link
    return f"| `{names}` | {said} |"


def section(command, context):
    lines = [f"## {context.command_path.removeprefix('fedreid-mpi ')}", ""]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines += ["```text", usage, "```", ""]
    for part in prose(command.help):
        lines += [part, ""]
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if options:
        rows = [row(option, context) for option in options]
        lines += ['<div class="keys" markdown>', "", "| option | meaning |", "|---|---|", *rows, "", "</div>"]
    return "\n".join(lines).strip()


def sections():
    """The generated part of the page."""
    root = click.Context(group, info_name="fedreid-mpi")
    return "\n\n".join(section(*each) for each in commands(group, root)) + "\n"


def renewed(page):
    head = page.partition("<!-- generated -->")[0]
    return head + "<!-- generated -->\n\n" + sections()


def test_the_page_shows_every_command_as_it_is(generated):
    generated(PAGE, renewed)


def test_every_option_is_described():
    rows = re.findall(r"^\| `(.+)` \| (.*) \|$", sections(), flags=re.MULTILINE)
    assert len(rows) > 100
    assert [option for option, said in rows if not re.sub(r"One of `.*`\.|\\\[.*\]", "", said).strip()] == []
