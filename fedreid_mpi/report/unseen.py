"""The paper's table 5: global models on datasets that nobody trained on."""

from collections.abc import Iterable

from fedreid_mpi.report.comparable import lacking, moments, to_add
from fedreid_mpi.report.findings import GLOBAL_MODELS, Answer, differences_in_words, rounds_in_words
from fedreid_mpi.report.study import METRICS, Method, Study
from fedreid_mpi.report.tables import Picture, Table, methods_table
from fedreid_mpi.report.values import common_rounds, compare_unseen

_TABLE_5 = ("CC & CDW", "KD & CDW")


def table_5(study: Study) -> Answer:
    """Tabulate the global models of all methods that were scored on datasets that nobody trained on."""
    methods = [method for method in study.methods if any(run.unseen for run in method.runs)]
    claims: list[str] = []
    exhibits: list[Table | Picture] = []
    missing = lacking(_TABLE_5, methods)
    if missing:
        missing[-1] += ", with data.unseen: archives of datasets that nobody trains on (CAVIAR4REID, GRID)"
    if methods:
        rounds = common_rounds(methods)
        claims += rounds_in_words(methods)
        for when, ending in moments(rounds):
            for metric in METRICS:
                comparison = compare_unseen(methods, when, metric, GLOBAL_MODELS, rounds)
                if comparison is not None:
                    folded = bool(ending) or metric != METRICS[0]
                    name = f"table-5{ending}-{metric.lower()}"
                    exhibits.append(methods_table(name, "Unseen datasets", comparison, folded=folded))
        for alike in _by_unseen(methods):
            comparison = compare_unseen(alike, rounds[-1], METRICS[0], GLOBAL_MODELS) if rounds else None
            claims += differences_in_words(comparison) if comparison else ()
        claims.append(
            "If clients are grouped, a score is the mean over the groups' models, weighted by numbers of "
            "clients. The best three rounds are chosen by the clients' datasets, never by the unseen ones."
        )
    title = "Table 5: datasets that nobody trained on"
    return Answer("table-5", title, tuple(claims), tuple(exhibits), to_add(missing, exhibits))


def _by_unseen(methods: Iterable[Method]) -> Iterable[list[Method]]:
    """Put methods together that trained on the same datasets and left out the same."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Method]] = {}
    for method in methods:
        found.setdefault((method.datasets, method.runs[0].unseen), []).append(method)
    return found.values()
