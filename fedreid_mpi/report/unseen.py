"""The paper's table 5: global models on datasets that nobody trained on."""

from fedreid_mpi.report.comparable import lacking, moments, to_add
from fedreid_mpi.report.findings import GLOBAL_MODELS, Answer, differences_in_words, rounds_in_words
from fedreid_mpi.report.study import METRICS, Study
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
                    claims += () if folded else differences_in_words(comparison)
        claims.append(
            "Where clients are grouped, a score is the mean over the groups' models, weighted by their "
            "clients. The best three rounds are chosen by the clients' datasets, never by the unseen ones."
        )
    title = "Table 5: datasets that nobody trained on"
    return Answer("table-5", title, tuple(claims), tuple(exhibits), to_add(missing, exhibits))
