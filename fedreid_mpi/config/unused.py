"""Settings that a user has changed and that nothing would read: refused, never silently ignored."""

from collections.abc import Iterable, Iterator

from fedreid_mpi.config.presets import PRESETS
from fedreid_mpi.config.sections import Experiment
from fedreid_mpi.config.server import Aggregation, Clustering, Distillation, Server


def unused_settings(experiment: Experiment) -> Iterator[str]:
    """Name each key that a user has changed and that nothing will read."""
    mode = f'federation.mode = "{experiment.federation.mode}"'
    unshared, central = experiment.federation.mode != "federated", experiment.federation.mode == "centralised"
    kinds, weights = experiment.federation.clients, experiment.aggregation.weights
    distilled, clustered = experiment.distillation.enabled, experiment.clustering.enabled
    masked, noised = experiment.privacy.secure_aggregation, experiment.privacy.noise_multiplier > 0
    bounded = experiment.privacy.clip > 0
    optimizer = experiment.server.optimizer
    absolute = experiment.distillation.lr
    iterations, sampler = experiment.federation.local_iterations, experiment.federation.sampler
    schedule, triplet = experiment.optimizer.schedule, experiment.objective.triplet
    stepping = f'optimizer.schedule = "{schedule}"'
    unused: tuple[tuple[str, Iterable[str], bool, str], ...] = (
        ("federation", ("clients_per_round", "availability", "edge_rounds"), unshared, mode),
        ("federation", ("clients", "identity_clients"), central, mode),
        ("federation", ("local_epochs",), iterations > 0, f"federation.local_iterations = {iterations}"),
        (
            "federation",
            ("images_per_identity",),
            sampler != "identities",
            f'federation.sampler = "{sampler}"',
        ),
        ("federation", ("drop_last",), sampler != "shuffled", f'federation.sampler = "{sampler}"'),
        ("federation", ("identity_clients",), kinds != "identity", f'federation.clients = "{kinds}"'),
        ("federation", ("edge_rounds",), kinds == "dataset", 'federation.clients = "dataset"'),
        ("federation", ("edge_rounds",), clustered, "clustering.enabled = true"),
        ("reliability", ("min_clients",), central, mode),
        ("aggregation", Aggregation.model_fields, unshared, mode),
        ("aggregation", ("probe",), weights != "cosine-distance", f'aggregation.weights = "{weights}"'),
        ("server", Server.model_fields, unshared, mode),
        ("server", tuple(Server.model_fields)[1:], optimizer == "none", 'server.optimizer = "none"'),
        ("server", ("beta2", "epsilon"), optimizer == "momentum", 'server.optimizer = "momentum"'),
        ("objective", ("proximal", "contrastive"), unshared, mode),
        ("privacy", ("secure_aggregation", "clip"), unshared, mode),
        ("privacy", ("statistics_clip", "noise_multiplier"), not bounded, "privacy.clip = 0"),
        ("privacy", ("delta",), not noised, "privacy.noise_multiplier = 0"),
        ("reliability", ("min_clients",), bounded, "privacy.clip > 0: a round may be empty"),
        ("privacy", ("neighbours",), not masked, "privacy.secure_aggregation = false"),
        ("distillation", ("enabled",), unshared and distilled, mode),
        ("clustering", ("enabled",), unshared and clustered, mode),
        ("evaluation", ("local_models",), unshared, mode),
        ("data", ("unseen",), experiment.federation.mode == "local", mode),
        ("evaluation", ("reestimate_bn",), unshared, mode),
        ("objective", ("temperature",), not experiment.objective.contrastive, "objective.contrastive = 0"),
        ("objective", ("margin",), not triplet, "objective.triplet = 0"),
        ("optimizer", ("step_every",), schedule != "step", stepping),
        ("optimizer", ("milestones",), schedule != "milestones", stepping),
        ("optimizer", ("step_factor",), schedule not in ("step", "milestones"), stepping),
        ("distillation", tuple(Distillation.model_fields)[1:], not distilled, "distillation.enabled = false"),
        ("distillation", ("lr_factor",), absolute > 0, f"distillation.lr = {absolute}"),
        ("distillation", ("scope",), not clustered, "clustering.enabled = false"),
        ("clustering", tuple(Clustering.model_fields)[1:], not clustered, "clustering.enabled = false"),
        (
            "data",
            ("public", "exclude_overlap"),
            not experiment.uses_public,
            "there is no distillation, no clustering, and no public probe",
        ),
    )
    for section, keys, nothing, why in unused:
        for key in keys:
            model = getattr(experiment, section)
            default = (
                PRESETS[experiment.preset].get(section, {}).get(key, type(model).model_fields[key].default)
            )
            if nothing and getattr(model, key) != default:
                yield f"{section}.{key} has no effect when {why}"
