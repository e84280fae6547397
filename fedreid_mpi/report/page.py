"""The report of a study: one page that holds all, and each figure and table as files beside it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.report.appendix import APPENDICES
from fedreid_mpi.report.findings import Answer
from fedreid_mpi.report.overview import Fact, main_tables, settings_box
from fedreid_mpi.report.page_style import CSS
from fedreid_mpi.report.paper import PAPER
from fedreid_mpi.report.pictures import rendered
from fedreid_mpi.report.questions import QUESTIONS
from fedreid_mpi.report.study import Study
from fedreid_mpi.report.style import STYLE
from fedreid_mpi.report.tables import Picture, Table, to_csv, to_html, to_latex
from fedreid_mpi.report.values import LEVEL, PERCENT
from fedreid_mpi.storage.atomic import atomic_write

_READING = (
    "Scores are percentages on each dataset's own query and gallery split, differences percentage points.",
    "The <i>global model</i> is the server's average: that of its group, if clients are grouped. <i>Local "
    "models</i> are the clients' own after local training, before they are averaged. <i>Standalone</i> is a "
    "client that trained alone.",
    "± is the sample standard deviation over seeds; a figure without it comes from one seed.",
    f"Differences are taken seed by seed; the {PERCENT} confidence interval (Student's t) of their mean is "
    "in parentheses. A difference is <i>clear</i>, and bold, if this interval excludes 0. With three seeds "
    "it must be 2.5 times its deviation, with two 9 times. About one in "
    f"{round(1 / (1 - LEVEL))} comparisons in which nothing differs is called clear by chance.",
    "In tables of scores the highest is bold; scores that are not clearly below it are underlined. A single "
    "seed says nothing about chance.",
    "Methods are compared after the last round that all their runs have evaluated. The <i>best three</i> "
    "rounds are chosen among those that all have, by the scores of the reported model.",
)

_PIXELS_PER_INCH = 105
"""On the page, so that letters are of one size in all figures."""


@dataclass(frozen=True, slots=True)
class Report:
    """A study and all that is said of it.

    Attributes
    ----------
    study
        Its runs.
    settings
        What a reader must know of them.
    main
        All methods in a table, the one of the most methods first.
    paper, questions
        The paper's tables and figures, and its questions in detail.
    appendices
        What is said of every study.
    """

    study: Study
    settings: tuple[Fact, ...]
    main: tuple[Table, ...]
    paper: tuple[Answer, ...]
    questions: tuple[Answer, ...]
    appendices: tuple[Answer, ...]

    @property
    def answered(self) -> tuple[Answer, ...]:
        """What the runs answer, at least in part: the paper's tables first."""
        return tuple(answer for answer in (*self.paper, *self.questions) if answer.exhibits)

    @property
    def open(self) -> tuple[Answer, ...]:
        """What they do not."""
        return tuple(answer for answer in (*self.paper, *self.questions) if not answer.exhibits)


def make_report(study: Study) -> Report:
    """Answer all that a report answers."""
    with matplotlib.rc_context(STYLE):
        answers = [tuple(ask(study) for ask in part) for part in (PAPER, QUESTIONS, APPENDICES)]
    return Report(study, tuple(settings_box(study)), tuple(main_tables(study)), *answers)


def write_report(report: Report, folder: Path, formats: Sequence[str] = ("png",)) -> tuple[Path, ...]:
    """Write ``index.html``, and beside it CSV and LaTeX of each table and a file of each figure.

    Parameters
    ----------
    report
        What is to be written.
    folder
        Made if need be; files of the same names are replaced.
    formats
        Of the figures' files, of `fedreid_mpi.report.formats.UNDATED`; the page holds its own.

    Returns
    -------
    tuple of Path
        The files written, the page last.

    Raises
    ------
    ConfigurationError
        The folder cannot be written to.
    """
    contents: dict[str, bytes] = {}
    with matplotlib.rc_context(STYLE):
        answers = (*report.paper, *report.questions, *report.appendices)
        exhibits = (*report.main, *(exhibit for answer in answers for exhibit in answer.exhibits))
        pngs = {each.name: rendered(each.figure, "png") for each in exhibits if isinstance(each, Picture)}
        for exhibit in exhibits:
            contents.update(_files(exhibit, formats, pngs))
        contents["index.html"] = _page(report, pngs).encode(errors="replace")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: the report cannot be written: {error.strerror or error}"
        ) from error
    return tuple(folder / name for name in contents)


def _files(exhibit: Table | Picture, formats: Sequence[str], pngs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of an exhibit: name to content; of its PNG the drawing is there."""
    if isinstance(exhibit, Table):
        return {
            f"{exhibit.name}.csv": to_csv(exhibit).encode(errors="replace"),
            f"{exhibit.name}.tex": to_latex(exhibit).encode(errors="replace"),
        }
    return {
        f"{exhibit.name}.{ending}": pngs[exhibit.name]
        if ending == "png"
        else rendered(exhibit.figure, ending)
        for ending in formats
    }


def _page(report: Report, pngs: Mapping[str, bytes]) -> str:
    links = [("main", "All methods"), *((answer.key, answer.title) for answer in report.answered)]
    links += [("open", "Not answered")] * bool(report.open)
    links += [(answer.key, answer.title) for answer in report.appendices]
    listed = "".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in links)
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in report.settings)
    reading = "".join(f"<li>{words}</li>" for words in _READING)
    main = Answer("main", "All methods", exhibits=report.main)
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>Federated person re-identification: report</title><style>{CSS}</style></head><body>",
            f"<h1>Federated person re-identification: report</h1><dl>{facts}</dl>",
            *(f'<p class="warning">{escape(warning)}</p>' for warning in report.study.warnings),
            *_section(main, pngs),
            f'<ul class="soft">{reading}</ul><nav><ul>{listed}</ul></nav>',
            *(line for answer in report.answered for line in _section(answer, pngs)),
            *_unanswered(report.open),
            *(line for answer in report.appendices for line in _section(answer, pngs)),
            "</body></html>",
            "",
        ]
    )


def _section(answer: Answer, pngs: Mapping[str, bytes]) -> Iterator[str]:
    yield f'<section id="{answer.key}"><h2>{escape(answer.title)}</h2>'
    if answer.claims:
        yield f"<ul>{''.join(f'<li>{escape(claim)}</li>' for claim in answer.claims)}</ul>"
    for exhibit in answer.exhibits:
        if isinstance(exhibit, Table):
            yield to_html(exhibit)
        else:
            yield _figure(exhibit, answer.key, pngs[exhibit.name])
    if answer.missing:
        yield f'<p class="missing">{escape(answer.missing)}</p>'
    yield "</section>"


def _figure(picture: Picture, section: str, png: bytes) -> str:
    """Show a figure, which opens at full size and closes into its section."""
    data = base64.b64encode(png).decode()
    width = round(_PIXELS_PER_INCH * picture.figure.get_figwidth())
    caption, key = escape(picture.caption), f"figure-{picture.name}"
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="frame" id="{key}" tabindex="0">'
        f'<a href="#{section}" class="close">Close</a>'
        f'<a href="#{key}"><img width="{width}" alt="{caption}" src="data:image/png;base64,{data}"></a>'
        "</div></figure>"
    )


def _unanswered(answers: Sequence[Answer]) -> Iterator[str]:
    """List what the runs do not answer, and what would."""
    if answers:
        yield '<section id="open"><h2>Not answered</h2><dl>'
        for answer in answers:
            yield f"<dt>{escape(answer.title)}</dt><dd>{escape(answer.missing)}</dd>"
        yield "</dl></section>"
