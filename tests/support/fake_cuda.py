"""A CUDA device without a GPU: tensors that know their shapes alone, and tensors that are labelled ``cuda``.

`fake_cuda` is for what is built, trained and averaged. Its tensors hold no values, but each operation checks
the devices of what it is given as a GPU's would, and every read back to the host is noted.
`labelled_cuda` is for what depends on values, such as ranking: its tensors hold values, the CPU calculates,
and they say that they are on a GPU.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import CodeType
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

import fedreid_mpi

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

PACKAGE = Path(fedreid_mpi.__file__).parent

MIXED = "Expected all tensors to be on the same device"
"""What torch says where devices are mixed."""

aten = torch.ops.aten


class DeviceMixError(RuntimeError):
    """An operation was given tensors of two devices."""


class Watch(TorchDispatchMode):
    """Notes what is read back from the GPU, and checks what fake tensors let pass.

    Uploads are not noted, though the host waits for those of ordinary memory as well.

    Attributes
    ----------
    reads
        Who read, one entry each time, in order: ``"federated.sgd.descend"``.
    """

    def __init__(self):
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, operation = kwargs or {}, func.overloadpacket
        if operation in (aten.index, aten.index_put, aten.index_put_, aten._fused_sgd_):
            require_one_device(func, args, kwargs)
        if reads_back(operation, args, kwargs):
            self.reads.append(reader())
        if operation is aten._local_scalar_dense:
            return one(args[0].dtype)  # fake tensors have no value to give
        if operation is aten._fused_sgd_:
            return None  # has no fake kernel, and changes no shape
        return func(*args, **kwargs)


def reads_back(operation, args, kwargs) -> bool:
    """Tell whether an operation needs values of the GPU on the host, for which all before it must be done."""
    if operation is aten._local_scalar_dense:  # item, float, int, bool
        return on_gpu(args[0])
    if operation is aten._to_copy:
        return on_gpu(args[0]) and kwargs.get("device") == CPU
    if operation is aten.copy_:
        return on_gpu(args[1]) and not on_gpu(args[0])
    if operation in (aten.index, aten.index_put, aten.index_put_) and on_gpu(args[0]):
        # How many elements a mask chooses must be known, unless it is filled with a number.
        masked = any(index is not None and index.dtype == torch.bool for index in args[1])
        return masked and (operation is aten.index or on_gpu(args[2]) or args[2].numel() > 1)
    return operation in (aten.nonzero, aten.masked_select, aten._unique2) and on_gpu(args[0])


def on_gpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def one(dtype: torch.dtype):
    """Return a finite number of a type, in Python."""
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


def reader() -> str:
    """Name the function of the package that is at work."""
    frame = sys._getframe(1)
    while frame is not None and not is_function_of_package(frame.f_code):
        frame = frame.f_back
    if frame is None:
        return "a test"
    return f"{frame.f_globals['__name__'].removeprefix('fedreid_mpi.')}.{frame.f_code.co_name}"


def is_function_of_package(code: CodeType) -> bool:
    """Tell functions of the package from others, and from expressions such as ``<genexpr>``."""
    return PACKAGE in Path(code.co_filename).parents and not code.co_name.startswith("<")


def require_one_device(func, args, kwargs) -> None:
    """Refuse what a GPU would: only copies cross, numbers, and indices that the host has for the GPU."""
    operation = func.overloadpacket
    if operation in (aten.copy_, aten._to_copy):
        return
    if operation in (aten.index, aten.index_put, aten.index_put_) and on_gpu(args[0]):
        args = (args[0], *args[2:])
    tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    if not any(on_gpu(tensor) for tensor in tensors):
        return
    if any(not on_gpu(tensor) and tensor.dim() for tensor in tensors):
        raise DeviceMixError(f"{func}: {MIXED}, not on {[str(tensor.device) for tensor in tensors]}")


@contextmanager
def fake_cuda(free: int = 1 << 40) -> Iterator[Watch]:
    """Run a block on a machine with one GPU, of whose memory so many bytes are free.

    What is made in the block are fake tensors, those on the host as well: a number that is read is 1.
    """
    fork_rng = torch.random.fork_rng
    with ExitStack() as patched:
        for name, value in {
            "autograd.backward": fill_gradients,
            "nn.Module.to": move,
            "Tensor.numpy": ones_like,
            "random.fork_rng": lambda devices: fork_rng(devices=[each for each in devices if each != CUDA]),
            "cuda.device": lambda device: nullcontext(),
            "cuda.device_count": lambda: 1,
            "cuda.set_device": lambda device: None,
            "cuda.manual_seed": lambda seed: None,
            "cuda.mem_get_info": lambda device: (free, 1 << 40),
            "cuda.is_bf16_supported": lambda: True,
            "cuda.amp.common.amp_definitely_not_available": lambda: False,
        }.items():
            patched.enter_context(patch(f"torch.{name}", value))
        patched.enter_context(FakeTensorMode())
        yield patched.enter_context(Watch())


@torch.no_grad()
def fill_gradients(loss: Tensor) -> None:
    """Give every leaf of the loss a gradient: the backward pass itself would start a stream of the GPU."""
    waiting, met = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            leaf.grad = torch.empty_like(leaf)
        waiting += [following for following, _ in node.next_functions]


def move(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Move a module as `Module.to` would, which swaps tensors like ours in place, or tries to."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                kept = memory_format if tensor.dim() == 4 else torch.preserve_format
                moved = tensor.detach().to(device, memory_format=kept)
                is_parameter = isinstance(tensor, nn.Parameter)
                tensors[name] = nn.Parameter(moved, tensor.requires_grad) if is_parameter else moved
    return module


def ones_like(tensor: Tensor) -> np.ndarray:
    """Stand in for `Tensor.numpy`."""
    if on_gpu(tensor):
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    return np.ones(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


class Labelled(Tensor):
    """A tensor that holds values of the CPU and says that it is on a GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device=CUDA, **layout)
        made.held = held
        return made

    # Else torch would make tensors of the host that come back into labelled ones.
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self):
        return f"Labelled({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return calculate(func, args, kwargs or {})


class Labelling(TorchDispatchMode):
    """Makes labelled tensors where tensors on the GPU are asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return calculate(func, args, kwargs or {})


def calculate(func, args: Sequence, kwargs: dict):
    """Let the CPU calculate, and label what would be on the GPU."""
    require_one_device(func, args, kwargs)
    given = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
    known = {id(getattr(tensor, "held", tensor)): tensor for tensor in given}
    on_device = any(isinstance(tensor, Labelled) for tensor in given)
    if (device := kwargs.get("device")) is not None:
        on_device, kwargs = device.type == "cuda", kwargs | {"device": CPU}
    args, kwargs = tree_map_only(Labelled, lambda tensor: tensor.held, (args, kwargs))

    def label(result: Tensor) -> Tensor:
        # What works in place returns what it was given.
        return known.get(id(result), Labelled(result) if on_device else result)

    return tree_map_only(Tensor, label, func(*args, **kwargs))


@contextmanager
def labelled_cuda() -> Iterator[None]:
    """Run a block in which ``cuda`` is a label; the figures are the CPU's."""
    with ExitStack() as patched:
        patched.enter_context(patch("torch.nn.Module.to", move))
        if not torch.cuda.is_available():
            # Torch starts CUDA when it first sees the word, which fails where there is none.
            patched.enter_context(patch("torch.cuda._lazy_init", lambda: None))
            torch._C._ensureCUDADeviceGuardSet()
        # The CPU has no kernels of cuDNN's.
        patched.enter_context(torch.backends.cudnn.flags(enabled=False))
        # `torch.tensor` is to make a tensor of the host first, and to move it by an operation that is seen.
        patched.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        yield patched.enter_context(Labelling())
