"""The report of a study: one page that holds all, and each figure and table as files beside it."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.report.appendix import APPENDICES
from fedreid_mpi.report.findings import Answer
from fedreid_mpi.report.paper import PAPER
from fedreid_mpi.report.questions import QUESTIONS
from fedreid_mpi.report.study import Study
from fedreid_mpi.report.style import STYLE
from fedreid_mpi.report.tables import Picture, Table, to_csv, to_html, to_latex
from fedreid_mpi.report.values import LEVEL, PERCENT
from fedreid_mpi.storage.atomic import atomic_write
from fedreid_mpi.wording import counted

_READING = (
    "Scores are percentages on the datasets' own query and gallery splits; differences are percentage "
    "points. The <i>global model</i> is the server's average (its group's where clients are grouped), "
    "<i>local models</i> are the clients' after their local epochs, before upload; <i>standalone</i> is a "
    "client that was trained alone. “±” is the sample standard deviation over seeds (n − 1); a figure "
    "without it comes from one seed. Differences are taken seed by seed, then averaged. One is called "
    f"<i>clear</i>, and is bold in the tables, where the {PERCENT} t interval of its mean leaves out 0: "
    f"about one in {round(1 / (1 - LEVEL))} comparisons in which nothing differs is called clear by chance, "
    "so expect some among many datasets and methods. With three seeds a mean must be 2.5 times its "
    "deviation, with two 9 times. Methods are compared at the last round that all of their runs have "
    "evaluated; the <i>best three</i> are chosen among the rounds that all have, by the scores of the model "
    "that is reported. <i>Highest</i> is said of figures, whether or not it is clear."
)

_PIXELS_PER_INCH = 105
"""On the page, so that letters are of one size in all figures."""

_CSS = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--soft:#666;--line:#ddd;--note:#fff4d6;
--link:#0060a0}
@media(prefers-color-scheme:dark){:root{--ink:#e4e4e4;--paper:#17191c;--soft:#a0a0a0;--line:#3a3d42;
--note:#3a3115;--link:#7fc0f0}}
p,ul,details>summary,nav{max-width:64rem}
body{max-width:84rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
a{color:var(--link)}h1{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid var(--line)}
nav ul{columns:2 22rem;list-style:none;padding:0}nav li{break-inside:avoid}
.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
.missing,.warning{background:var(--note);padding:.5rem .8rem;border-radius:.3rem}
figure{margin:1.5rem 0}figure img{max-width:100%;background:#fff;border-radius:.3rem;padding:.3rem;
box-sizing:border-box}
.table{overflow-x:auto;margin:1.5rem 0}details{margin:.6rem 0}summary{cursor:pointer}
summary{color:var(--soft);font-size:.9rem}
details caption{display:none}details .table{margin:.5rem 0 1.5rem}
table{border-collapse:collapse;font-size:.85rem;
font-variant-numeric:tabular-nums}caption{text-align:left;padding-bottom:.4rem;
max-width:calc(100vw - 2rem)}
th,td{padding:.2rem .6rem;text-align:right;white-space:nowrap}th[scope=row],thead th:first-child,.text{
text-align:left}thead th{white-space:normal;vertical-align:bottom;border-bottom:1px solid var(--ink)}
td.text{white-space:normal;min-width:8rem}tr.ruled>*{border-top:1px solid var(--ink)}
@media print{:root{--ink:#000;--paper:#fff;--soft:#444;--line:#aaa;--note:#eee}body{max-width:none;
font-size:10pt}nav{display:none}figure,tr,li{break-inside:avoid}.table{overflow:visible}
table{font-size:7pt}th,td{padding:.1rem .3rem;white-space:normal}}
"""


@dataclass(frozen=True, slots=True)
class Report:
    """A study and all that is said of it: the paper's tables and figures, its questions, appendices."""

    study: Study
    paper: tuple[Answer, ...]
    questions: tuple[Answer, ...]
    appendices: tuple[Answer, ...]


def make_report(study: Study) -> Report:
    """Answer all that a report answers."""
    with matplotlib.rc_context(STYLE):
        return Report(study, *(tuple(ask(study) for ask in part) for part in (PAPER, QUESTIONS, APPENDICES)))


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write ``index.html``, and beside it a PNG of each figure and CSV and LaTeX of each table.

    Parameters
    ----------
    report
        What is to be written.
    folder
        Made if need be; files of the same names are replaced.

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
        for answer in (*report.paper, *report.questions, *report.appendices):
            for exhibit in answer.exhibits:
                contents.update(_files(exhibit))
    contents["index.html"] = _page(report, contents).encode(errors="replace")
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


def _files(exhibit: Table | Picture) -> dict[str, bytes]:
    """Return the files of an exhibit: name to content."""
    if isinstance(exhibit, Table):
        return {
            f"{exhibit.name}.csv": to_csv(exhibit).encode(errors="replace"),
            f"{exhibit.name}.tex": to_latex(exhibit).encode(errors="replace"),
        }
    memory = io.BytesIO()
    exhibit.figure.savefig(memory, format="png")
    return {f"{exhibit.name}.png": memory.getvalue()}


def _page(report: Report, files: dict[str, bytes]) -> str:
    study = report.study
    runs, methods = len(study.runs), len(study.methods)
    seeds = sorted({run.seed for run in study.runs})
    named = [(answer.title, answer) for answer in report.paper]
    named += [
        (f"{number}. {answer.title}", answer) for number, answer in enumerate(report.questions, start=1)
    ]
    named += [(answer.title, answer) for answer in report.appendices]
    links = "".join(f'<li><a href="#{answer.key}">{escape(title)}</a></li>' for title, answer in named)
    summary = f"{counted(runs, 'run')} of {counted(methods, 'method')}, seed{'s' * (len(seeds) > 1)} "
    summary += f"{', '.join(map(str, seeds))}."
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>Federated person re-identification: report</title><style>{_CSS}</style></head><body>",
            f"<h1>Federated person re-identification: report</h1><p>{escape(summary)}</p>",
            *(f'<p class="warning">{escape(warning)}</p>' for warning in study.warnings),
            f'<p class="soft">{_READING}</p><nav><ul>{links}</ul></nav>',
            *(line for title, answer in named for line in _section(title, answer, files)),
            "</body></html>",
            "",
        ]
    )


def _section(title: str, answer: Answer, files: dict[str, bytes]) -> Iterator[str]:
    yield f'<section id="{answer.key}"><h2>{escape(title)}</h2>'
    if answer.missing:
        yield f'<p class="missing">{escape(answer.missing)}</p>'
    if answer.claims:
        yield f"<ul>{''.join(f'<li>{escape(claim)}</li>' for claim in answer.claims)}</ul>"
    for exhibit in answer.exhibits:
        if isinstance(exhibit, Table):
            yield to_html(exhibit)
        else:
            data = base64.b64encode(files[f"{exhibit.name}.png"]).decode()
            width = round(_PIXELS_PER_INCH * exhibit.figure.get_figwidth())
            caption = escape(exhibit.caption)
            yield (
                f'<figure><img width="{width}" alt="{caption}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>"
            )
    yield "</section>"
