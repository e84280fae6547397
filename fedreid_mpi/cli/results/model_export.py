"""The part of ``fedreid-mpi results export`` that writes a model for another project."""

from __future__ import annotations

from pathlib import Path

import click

from fedreid_mpi.errors import ConfigurationError

ENDINGS = {".pth", ".pt", ".tar"}


def write_model(paths: tuple[Path, ...], output: Path, project: str) -> None:
    """Write a model's state dict for another project.

    Parameters
    ----------
    paths
        One model file, or one run directory, whose global model is meant.
    output
        Replaced when the new file is whole.
    project
        Who is to load it.

    Raises
    ------
    FedReIDError
        The model cannot be read, the project has no such network, or the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    from fedreid_mpi.model import for_project, load_model
    from fedreid_mpi.storage.atomic import atomic_write, write_errors

    if len(paths) != 1:
        raise ConfigurationError(f"--model {project}: expected one model or run, found {len(paths)}")
    flat = project == "timm" and output.suffix.lower() == ".safetensors"
    if not flat and output.suffix.lower() not in ENDINGS:
        also = " or .safetensors" if project == "timm" else ""
        raise ConfigurationError(f"-o {output}: expected .pth{also} with --model {project}")
    path = paths[0] / "models" / "global.safetensors" if paths[0].is_dir() else paths[0]
    stored = load_model(path)
    content = for_project(stored, project)
    with write_errors(output), atomic_write(output) as temporary:
        if flat:
            tensors = {name: leaf.contiguous() for name, leaf in content.items() if torch.is_tensor(leaf)}
            temporary.write_bytes(save(tensors))
        else:
            torch.save(content, temporary)
    scale = stored.network.pixel_scale
    click.echo(
        f"{output}: {stored.settings.backbone} for {project}; images of {stored.height}x{stored.width}, "
        f"mean {' '.join(f'{value:g}' for value in scale.mean)}, "
        f"deviation {' '.join(f'{value:g}' for value in scale.deviation)}"
    )
