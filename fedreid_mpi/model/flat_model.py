"""The flat model: all floating-point state of a network in one buffer, so that it travels as one message.

The buffer is laid out ``[backbone | embedding | statistics | classifier]``. What the server averages is the
front part, what a client keeps for itself the rest; both are contiguous. The network's parameters and
buffers are views of it. Integer counters of BatchNorm stay in the module: they count batches, never enter a
result, and are not sent.

One model serves all clients of a rank in turn: its classifier has room for the largest of them, and a client
uses the first rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedreid_mpi.model.batch_norm import BatchNorm
from fedreid_mpi.model.network import ReIDNetwork
from fedreid_mpi.records import ParamSpec, Role

ALIGNMENT = 16
"""Elements: every tensor starts at a multiple of 64 bytes, so that the same vector code runs on each rank."""


class FlatModel:
    """A network on a device with its state in one contiguous fp32 buffer.

    Parameters
    ----------
    network
        Is moved to the device. Never call ``.to()`` on it afterwards: that silently breaks the views.
    device
        Where the buffer lives.
    memory_format
        How filters are laid out.

    Attributes
    ----------
    network
        The module; its tensors are views of `buffer`.
    specs
        One a tensor, in buffer order.
    normalisation
        Those of them that belong to BatchNorm: statistics, scale and shift.
    buffer
        Shape (elements,), float32; the gaps between tensors are zero.
    """

    def __init__(
        self,
        network: ReIDNetwork,
        device: torch.device,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.network = network.place(device, memory_format)
        self.specs, size = lay_out(network)
        self.buffer = torch.zeros(size, dtype=torch.float32, device=device)
        modules = dict(network.named_modules())
        for spec in self.specs:
            view = self.view(spec)
            owner, _, name = spec.name.rpartition(".")
            tensor = getattr(modules[owner], name)
            view.copy_(tensor.detach())
            if isinstance(tensor, nn.Parameter):
                tensor.data = view
            else:
                modules[owner].register_buffer(name, view)
        self.normalisation = tuple(
            spec for spec in self.specs if isinstance(modules[spec.name.rpartition(".")[0]], BatchNorm)
        )
        self._regions: dict[Role, slice] = {}
        end = 0
        for role in Role:
            sizes = [_padded(spec.size) for spec in self.specs if spec.role is role]
            begin, end = end, end + sum(sizes)
            self._regions[role] = slice(begin, end)
        self._parameters = dict(network.named_parameters())
        self._cut: dict[int, tuple[ParamSpec, ...]] = {}

    def region(self, *roles: Role) -> slice:
        """Return the part of the buffer that holds the given neighbouring roles; it may be empty."""
        parts = [self._regions[role] for role in roles]
        return slice(min(part.start for part in parts), max(part.stop for part in parts))

    @property
    def shared(self) -> Tensor:
        """View of what travels: backbone, embedding and BatchNorm statistics; shape (shared,), float32."""
        return self.buffer[self.region(Role.BACKBONE, Role.EMBEDDING, Role.STATISTICS)]

    @property
    def statistics(self) -> slice:
        """Part of `shared` that holds BatchNorm running statistics."""
        return self.region(Role.STATISTICS)

    def view(self, spec: ParamSpec) -> Tensor:
        """Return one tensor as a view of the buffer."""
        return torch.as_strided(self.buffer, spec.shape, spec.stride, spec.offset)

    def specs_for(self, identities: int) -> tuple[ParamSpec, ...]:
        """Return the specs of a client's tensors: its classifier is the first rows of the largest one."""
        if identities not in self._cut:
            self._cut[identities] = tuple(
                replace(spec, shape=(identities, *spec.shape[1:])) if spec.role is Role.CLASSIFIER else spec
                for spec in self.specs
            )
        return self._cut[identities]

    @torch.no_grad()
    def use_identities(self, identities: int) -> None:
        """Make the classifier that of a client with so many people; what it does not use is zeroed."""
        for spec in self.specs_for(identities):
            if spec.role is Role.CLASSIFIER:
                parameter = self._parameters[spec.name]
                parameter.grad = None
                parameter.data = self.view(spec)
        held = [spec for spec in self.specs if spec.role is Role.CLASSIFIER]
        for spec in held:
            used = spec.size // spec.shape[0] * identities
            self.buffer[spec.offset + used : spec.offset + spec.size] = 0

    @torch.no_grad()
    def read(self, specs: Sequence[ParamSpec]) -> Tensor:
        """Copy some tensors, one after the other in their order in memory: shape (elements,), float32."""
        return torch.cat([self.buffer[spec.offset : spec.offset + spec.size] for spec in specs])

    @torch.no_grad()
    def write(self, specs: Sequence[ParamSpec], values: Tensor) -> None:
        """Set some tensors to what `read` returned, on any device."""
        start = 0
        for spec in specs:
            self.buffer[spec.offset : spec.offset + spec.size].copy_(values[start : start + spec.size])
            start += spec.size

    def parameters(self, *roles: Role) -> list[nn.Parameter]:
        """Return the trainable parameters of the given roles, in buffer order."""
        known = self._parameters
        chosen = [known[spec.name] for spec in self.specs if spec.role in roles and spec.name in known]
        return [parameter for parameter in chosen if parameter.requires_grad]


class _Features(nn.Module):
    """A network's features as what a module returns, which `torch.func.functional_call` asks for."""

    def __init__(self, network: ReIDNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)


def features_of(model: FlatModel, shared: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what maps images to the features that a model with another shared part makes of them.

    Nothing is copied: for the time of a call the network works on views of the other vector, and then on its
    own tensors again. Modes are those that the network is in.

    Parameters
    ----------
    model
        The model that lends its network.
    shared
        Shape (shared,), float32, on the model's device: the other model.
    """
    module = _Features(model.network)
    views = {
        f"network.{spec.name}": torch.as_strided(shared, spec.shape, spec.stride, spec.offset)
        for spec in model.specs
        if spec.role is not Role.CLASSIFIER
    }

    def features(images: Tensor) -> Tensor:
        found: Tensor = functional_call(module, views, (images,))
        return found

    return features


def lay_out(network: ReIDNetwork) -> tuple[tuple[ParamSpec, ...], int]:
    """Give every floating-point tensor of a network its place in the flat buffer.

    Returns
    -------
    tuple of specs and int
        The specs in buffer order, and the buffer's length in elements.
    """
    # Buffers that the module does not store are constants, such as the masks of a transformer.
    kept = network.state_dict()
    buffers = [
        (name, tensor)
        for name, tensor in network.named_buffers()
        if tensor.is_floating_point() and name in kept
    ]
    tensors: list[tuple[Role, str, Tensor]] = [(Role.STATISTICS, name, tensor) for name, tensor in buffers]
    tensors += [(_role(name), name, tensor) for name, tensor in network.named_parameters()]
    order = list(Role)
    tensors.sort(key=lambda item: order.index(item[0]))  # stable: the module's own order within a role
    specs, offset = [], 0
    for role, name, tensor in tensors:
        specs.append(ParamSpec(name, tuple(tensor.shape), tuple(tensor.stride()), offset, role))
        offset += _padded(tensor.numel())
    return tuple(specs), offset


def _role(name: str) -> Role:
    part = name.partition(".")[0]
    return {"backbone": Role.BACKBONE, "classifier": Role.CLASSIFIER}.get(part, Role.EMBEDDING)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
