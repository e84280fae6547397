"""The report of a study: one page that holds all, and each figure and table as files beside it."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import matplotlib

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.report.appendix import APPENDICES
from fedreid_mpi.report.findings import Answer
from fedreid_mpi.report.questions import QUESTIONS
from fedreid_mpi.report.study import Study
from fedreid_mpi.report.style import STYLE
from fedreid_mpi.report.tables import Picture, Table, to_csv, to_html, to_latex
from fedreid_mpi.storage.atomic import atomic_write

_READING = (
    "Scores are percentages on the datasets' own query and gallery splits; differences are percentage "
    "points. “±” is the sample standard deviation over seeds (n − 1); a figure without it comes from one "
    "seed. Differences are taken seed by seed, then averaged. One is called <i>within the spread</i> where "
    "its mean is no larger than its deviation, and is bold in the tables where it is larger. That is a mild "
    "test: with three seeds, a t test at 5 % asks for 2.5 deviations. Methods are compared at the last "
    "round that all of their runs have evaluated."
)

_PIXELS_PER_INCH = 105
"""On the page, so that letters are of one size in all figures."""

_CSS = """
:root{color-scheme:light dark;--ink:#1b1b1b;--paper:#fff;--soft:#666;--line:#ddd;--note:#fff4d6;
--link:#0060a0}
@media(prefers-color-scheme:dark){:root{--ink:#e4e4e4;--paper:#17191c;--soft:#a0a0a0;--line:#3a3d42;
--note:#3a3115;--link:#7fc0f0}}
body{max-width:64rem;margin:2rem auto;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper)}
a{color:var(--link)}h1{line-height:1.2}h2{margin-top:3rem;border-bottom:1px solid var(--line)}
nav ol{columns:2}.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
.missing,.warning{background:var(--note);padding:.5rem .8rem;border-radius:.3rem}
figure{margin:1.5rem 0}figure img{max-width:100%;background:#fff;border-radius:.3rem;padding:.3rem;
box-sizing:border-box}
.table{overflow-x:auto;margin:1.5rem 0}table{border-collapse:collapse;font-size:.85rem;
font-variant-numeric:tabular-nums}caption{text-align:left;padding-bottom:.4rem}
th,td{padding:.2rem .6rem;text-align:right;white-space:nowrap}th[scope=row],thead th:first-child,td.text{
text-align:left}thead th{white-space:normal;vertical-align:bottom;border-bottom:1px solid var(--ink)}
td.text{white-space:normal;min-width:8rem}tr.ruled>*{border-top:1px solid var(--ink)}
@media print{:root{--ink:#000;--paper:#fff;--soft:#444;--line:#aaa;--note:#eee}body{max-width:none;
font-size:10pt}nav{display:none}figure,tr,li{break-inside:avoid}.table{overflow:visible}
table{font-size:7pt}th,td{padding:.1rem .3rem;white-space:normal}}
"""


def write_report(study: Study, folder: Path) -> tuple[Path, ...]:
    """Write ``index.html``, and beside it a PNG of each figure and CSV and LaTeX of each table.

    Parameters
    ----------
    study
        The runs.
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
    with matplotlib.rc_context(STYLE):
        answers = [question(study) for question in QUESTIONS]
        appendices = [appendix(study) for appendix in APPENDICES]
        contents: dict[str, bytes] = {}
        for answer in (*answers, *appendices):
            for exhibit in answer.exhibits:
                contents.update(_files(exhibit))
    contents["index.html"] = _page(study, answers, appendices, contents).encode(errors="replace")
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


def _page(
    study: Study, answers: Sequence[Answer], appendices: Sequence[Answer], files: dict[str, bytes]
) -> str:
    runs, methods = len(study.runs), len(study.methods)
    seeds = sorted({run.seed for run in study.runs})
    named = [(f"{number}. {answer.title}", answer) for number, answer in enumerate(answers, start=1)]
    named += [(answer.title, answer) for answer in appendices]
    links = "".join(f'<li><a href="#{answer.key}">{escape(answer.title)}</a></li>' for _, answer in named)
    summary = f"{runs} runs of {methods} methods, seeds {', '.join(map(str, seeds))}."
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>Federated person re-identification: report</title><style>{_CSS}</style></head><body>",
            f"<h1>Federated person re-identification: report</h1><p>{escape(summary)}</p>",
            *(f'<p class="warning">{escape(warning)}</p>' for warning in study.warnings),
            f'<p class="soft">{_READING}</p><nav><ol>{links}</ol></nav>',
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
