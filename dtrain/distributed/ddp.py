"""DistributedDataParallel: one replica of a module on every rank, gradients averaged while backward runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

from dtrain.autograd.tensor import Tensor
from dtrain.backend.state import local
from dtrain.distributed.reducer import Reducer
from dtrain.distributed.sync import broadcast_arrays, verify_same
from dtrain.errors import ArgumentError, UnsupportedError
from dtrain.nn.module import Module


class DistributedDataParallel(Module):
    """Wraps ``module`` so that every rank of ``process_group`` trains the same replica on its own part of the batch.

    At construction all ranks must hold modules of the same names, shapes and dtypes; rank 0's parameters and buffers are
    copied to the others. Each backward averages the gradients over the ranks, in flat buckets of ``bucket_cap_mb`` MiB,
    while it goes on. ``state_dict`` has the names of the wrapped module, without a prefix. Source of the scheme: Li et
    al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.

    Raises DistributedError where ranks differ, and after a backward that left parameters without gradient (it names
    them) unless ``find_unused_parameters``.
    """

    def __init__(
        self,
        module: Module,
        device_ids: Any = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
    ) -> None:
        super().__init__()
        if static_graph:
            raise UnsupportedError("static_graph=True is not supported; leave it out, the graph may change from step to step")
        params = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not params:
            raise ArgumentError("DistributedDataParallel needs a module with at least one parameter that requires a gradient")
        self.module = module
        self.process_group = _resolve(process_group)
        self.broadcast_buffers = broadcast_buffers
        self.find_unused_parameters = find_unused_parameters
        self.require_backward_grad_sync = True
        self._to_average = [p for _, p in params]
        if init_sync:
            self._make_equal()
        cap = 25 if bucket_cap_mb is None else bucket_cap_mb
        self.reducer = Reducer(params, self.process_group, int(cap * 1024 * 1024), find_unused_parameters)

    def _make_equal(self) -> None:
        everything = [*self.module.named_parameters(), *self.module.named_buffers()]
        verify_same(self.process_group, everything, "the modules' parameters and buffers")
        broadcast_arrays(self.process_group, [t._array for _, t in everything])
        for _, tensor in everything:
            tensor._vc[0] += 1

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output. With gradients on and outside ``no_sync``, the next backward will be averaged."""
        sync = self.require_backward_grad_sync and local.grad_enabled
        if self.broadcast_buffers and self.require_backward_grad_sync:
            self._sync_buffers()
        output = self.module(*inputs, **kwargs)
        if sync:
            self.reducer.prepare(list(tensors_in(output)))
        else:
            self.reducer.skip()
        return output

    def _sync_buffers(self) -> None:
        buffers = [b for b in self.module.buffers()]
        if buffers and self.process_group.size > 1:
            broadcast_arrays(self.process_group, [b._array for b in buffers])
            for buffer in buffers:
                buffer._vc[0] += 1

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradients accumulate locally inside; the first forward and backward after it average all that has gathered."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped module's state, under its own names."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load into the wrapped module; names may carry PyTorch's ``module.`` prefix."""
        if state_dict and all(key.startswith("module.") for key in state_dict):
            state_dict = {key[len("module.") :]: value for key, value in state_dict.items()}
        return self.module.load_state_dict(state_dict, strict=strict, assign=assign)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The Tensors in nested tuples, lists, dicts and dataclass-like objects."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from tensors_in(getattr(value, name))


def _resolve(group: Any) -> Any:
    """The group given, or the default one."""
    if group is not None:
        return group
    from dtrain.distributed.process_group import resolve

    return resolve(group)
