"""The paper's table 2: one dataset, divided among clients by camera and by identity."""

from collections.abc import Sequence

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.comparable import KINDS, has, to_add
from fedreid_mpi.report.findings import Answer
from fedreid_mpi.report.study import Method, Study
from fedreid_mpi.report.tables import Cell, Table
from fedreid_mpi.report.terms import CENTRALISED, STANDALONE, column
from fedreid_mpi.report.values import Spread, common_rounds, scores_at

_CMC = ("rank-1", "rank-5", "rank-10", "mAP")

_SPLITS = ("by camera", "by identity", CENTRALISED, "whole", STANDALONE)


def table_2(study: Study) -> Answer:
    """Tabulate one dataset by camera, by identity and centralised."""
    families = study.families(
        *("federation.clients", "federation.identity_clients", "federation.mode", "federation.edge_rounds"),
        mode=None,
        least=1,
    )
    families = [family for family in families if _split(family)]
    families.sort(key=lambda family: column(family[0].datasets[0]))
    rows: dict[str, list[tuple[Cell, ...]]] = {"last": [], "best": []}
    missing = []
    for family in families:
        sides = sorted(family, key=lambda method: _SPLITS.index(_split_of(method)))
        rounds = common_rounds(sides)
        for method in sides:
            for kind, words in reversed(KINDS):
                if has(method, kind) and rounds:
                    for when, at in (("last", rounds[-1]), ("best", "best")):
                        rows[when].append(_row_2(method, kind, words, at, rounds))
        lacking = [words for words in _SPLITS[:3] if words not in map(_split_of, sides)]
        if lacking:
            missing.append(f"{family[0].datasets[0]} {', '.join(lacking)}")
    exhibits = _both(
        "table-2",
        "One dataset split among clients, in percent",
        ("dataset", "split", "clients", "models", "rounds", *_CMC),
        rows,
    )
    if not families:
        missing = [
            'one archive alone in data.archives, with federation.clients = "camera", "identity", and '
            'federation.mode = "centralised"'
        ]
    title = "Table 2: one dataset, by camera and by identity"
    return Answer("table-2", title, (), tuple(exhibits), to_add(missing, exhibits))


def _split_of(method: Method) -> str:
    """Describe how a dataset is divided among clients."""
    if method.term in (CENTRALISED, STANDALONE):
        return method.term
    clients = str(method.settings.get("federation.clients", "dataset"))
    return "whole" if clients == "dataset" else f"by {clients}"


def _split(family: Sequence[Method]) -> bool:
    """Return whether a family is one dataset, by cameras or people at least once."""
    alone = len(family[0].runs[0].results.datasets) == 1
    return alone and any(_split_of(method).startswith("by ") for method in family)


def _row_2(
    method: Method, kind: ModelKind, models: str, when: int | str, rounds: Sequence[int]
) -> tuple[Cell, ...]:
    chosen = None if method.term == STANDALONE else kind
    scores = [
        Spread.of([scores_at(run, when, chosen, metric, rounds)[0] for run in method.runs]) for metric in _CMC
    ]
    specs = method.runs[0].results.header.clients
    clients = sum(spec.dataset >= 0 for spec in specs)
    return (method.datasets[0], _split_of(method), clients, models, when, *scores)


def _both(
    name: str, caption: str, columns: tuple[str, ...], rows: dict[str, list[tuple[Cell, ...]]]
) -> list[Table]:
    """Make the table of the last common round, and folded that of the best three."""
    words = {"last": "the last common round", "best": "the best three rounds"}
    return [
        Table(f"{name}{'' if when == 'last' else '-best'}", f"{caption}, {words[when]}", columns, tuple(of),
              folded=when == "best")
        for when, of in rows.items()
        if of
    ]  # fmt: skip
