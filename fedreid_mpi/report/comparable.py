"""Which runs of a study belong into one of the paper's tables, and which are missing there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedreid_mpi.records import ModelKind
from fedreid_mpi.report.findings import GLOBAL_MODELS, LOCAL_MODELS
from fedreid_mpi.report.study import Method, Study
from fedreid_mpi.report.tables import Picture, Table
from fedreid_mpi.report.terms import BASELINES, CENTRALISED, FEDPAV, OPTIONS, STANDALONE

KINDS = ((ModelKind.LOCAL, LOCAL_MODELS), (ModelKind.GLOBAL, GLOBAL_MODELS))
"""The models that are reported, and what they are called."""

SETTINGS = {
    CENTRALISED: 'federation.mode = "centralised"',
    STANDALONE: 'federation.mode = "local"',
    FEDPAV: "the defaults of aggregation",
    "FedNova": 'aggregation.rule = "fednova"',
    "FedProx": "objective.proximal above 0",
    "CC": "clustering.enabled",
    "CDW": 'aggregation.weights = "cosine-distance"',
    "CC & CDW": "clustering.enabled and cosine-distance",
    "KD": "distillation.enabled",
    "KD & CDW": "distillation.enabled and cosine-distance",
}
"""The paper's methods, and what gives each."""


@dataclass(frozen=True, slots=True)
class Group:
    """Methods that differ in nothing but how clients learn from each other.

    Attributes
    ----------
    federated
        At least one.
    standalone, centralised
        Those with the same images and the same training; None where there is none.
    """

    federated: tuple[Method, ...]
    standalone: Method | None
    centralised: Method | None

    @property
    def methods(self) -> list[Method]:
        """All of them, in the order of the paper's tables."""
        return [*filter(None, (self.centralised, self.standalone)), *self.federated]

    def of(self, term: str) -> list[Method]:
        """Return the methods that the paper calls so."""
        return [method for method in self.methods if method.term == term]


def groups(study: Study) -> list[Group]:
    """Return the groups of a study, the largest first; without others a federated method is one."""
    found = []
    for family in study.families(*OPTIONS, least=1):
        others = {method.term: method for method in study.like(family[0], *OPTIONS, *BASELINES)}
        found.append(Group(family, others.get(STANDALONE), others.get(CENTRALISED)))
    found.sort(key=lambda group: -len(group.methods))
    return [group for group in found if len(group.methods) > 1] or found[:1]


def has(method: Method, kind: ModelKind) -> bool:
    """Return whether a method has such a model: standalone has local ones alone, centralised a global one."""
    alone = {STANDALONE: ModelKind.LOCAL, CENTRALISED: ModelKind.GLOBAL}.get(method.term, kind)
    return kind is alone and method.scored(kind)


def moments(rounds: Sequence[int]) -> list[tuple[int | str, str]]:
    """Return the last common round, and the choice of the best three: with the ending of their files."""
    return [(rounds[-1], ""), ("best", "-best")] if rounds else []


def lacking(terms: Iterable[str], methods: Iterable[Method]) -> list[str]:
    """Name the paper's methods that are not there, and what gives them."""
    there = {method.term for method in methods}
    return [f"{term} ({SETTINGS[term]})" for term in terms if term not in there]


def unscored(methods: Iterable[Method]) -> list[str]:
    """Name methods of which no local models were scored."""
    names = [method.titled for method in methods if not method.scored(ModelKind.LOCAL)]
    return [f"evaluation.local_models = true to {', '.join(names)}"] if names else []


def to_add(wanted: Iterable[str], exhibits: Sequence[Table | Picture]) -> str:
    """Describe what to add to the runs, where anything is missing."""
    words = "; ".join(dict.fromkeys(wanted))
    return f"Not answerable{' as a whole' if exhibits else ''}: add {words}." if words else ""
