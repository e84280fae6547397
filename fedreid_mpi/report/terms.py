"""The paper's terms: what it calls a method, and the order of its columns and rows.

Source: Zhuang et al., ACM TOMM 19(1s), 2023, tables 2 to 5. A method is known by its configuration, never by
its name.
"""

from collections.abc import Mapping
from typing import Any

DATASETS = (
    *("msmt17", "dukemtmcreid", "market1501", "cuhk03np"),
    *("prid2011", "cuhk01", "viper", "3dpes", "ilids"),
    *("caviar4reid", "grid"),
)
"""Columns of the paper's tables 3 and 4, the four large ones first, then those of table 5; see `plain`."""

LARGE = DATASETS[:4]
"""The large datasets, by which the published choice of round goes."""

CENTRALISED, STANDALONE, FEDPAV = "centralised", "standalone", "FedPav"

_MODES = {"centralised": CENTRALISED, "local": STANDALONE}
_SERVERS = {"momentum": "FedAvgM", "adam": "FedAdam", "yogi": "FedYogi"}
_RULES = {"fednova": "FedNova", "scaffold": "SCAFFOLD"}
_ROWS = (
    *(CENTRALISED, STANDALONE, FEDPAV, "FedNova", "FedProx", "SCAFFOLD", "MOON", *_SERVERS.values()),
    *("CC", "KD", "CDW", "CC & CDW", "KD & CDW"),
)
_CLIENTS = ("dataset", "camera", "identity")

OPTIONS = (
    *("distillation.", "clustering.", "aggregation.weights", "aggregation.probe", "aggregation.rule"),
    *("objective.proximal", "objective.contrastive", "objective.temperature", "server."),
    *("privacy.clip", "privacy.statistics_clip", "privacy.noise_multiplier", "privacy.delta"),
)
"""Settings that make the paper's methods and its rivals from FedPav; a dot at the end: all of a section."""

BASELINES = ("federation.mode", "federation.clients_per_round", "federation.edge_rounds", "aggregation.")
"""Settings that mean nothing where no models are averaged, and the one that says so."""


def plain(name: str) -> str:
    """Return the letters and digits of a name, in small letters: ``"CUHK03-NP"`` is ``"cuhk03np"``."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def column(dataset: str) -> int:
    """Return the position of a dataset in the paper's tables; those that are not in it come last."""
    name = plain(dataset)
    return DATASETS.index(name) if name in DATASETS else len(DATASETS)


def is_large(dataset: str) -> bool:
    """Return whether a dataset is one of the four large ones."""
    return plain(dataset) in LARGE


def optimisations(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which of the paper's three optimisations a configuration has: KD, CC and CDW, in this order."""
    there = (
        ("KD", settings.get("distillation.enabled")),
        ("CC", settings.get("clustering.enabled")),
        ("CDW", settings.get("aggregation.weights") == "cosine-distance"),
    )
    return tuple(name for name, has in there if has)


def term(settings: Mapping[str, Any]) -> str:
    """Return what the paper calls a method.

    Parameters
    ----------
    settings
        ``"section.key"`` to value.

    Returns
    -------
    str
        ``"centralised"``, ``"standalone"``, ``"FedPav"``, or rivals and optimisations joined by ``" & "``.
    """
    mode = str(settings.get("federation.mode", "federated"))
    if mode in _MODES:
        return _MODES[mode]
    rivals = (
        _RULES.get(str(settings.get("aggregation.rule")), ""),
        "FedProx" if settings.get("objective.proximal") else "",
        "MOON" if settings.get("objective.contrastive") else "",
        _SERVERS.get(str(settings.get("server.optimizer")), ""),
        "DP" if settings.get("privacy.clip") else "",
    )
    return " & ".join((*filter(None, rivals), *optimisations(settings))) or FEDPAV


def row(settings: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return what to sort methods by: the paper's rows, then clients, local epochs and batch size."""
    name, clients = term(settings), str(settings.get("federation.clients", "dataset"))
    return (
        _ROWS.index(name) if name in _ROWS else len(_ROWS),
        _CLIENTS.index(clients) if clients in _CLIENTS else len(_CLIENTS),
        int(settings.get("federation.local_epochs", 1)),
        int(settings.get("federation.batch_size", 0)),
    )
