"""Ranks that train together, under ``torch.distributed``'s names.

Loaded on first use, so that a script that only all-reduces does not pay for checkpoints and wrappers.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

_HOMES = {
    "process_group": """Backend GroupMember ProcessGroup default_pg_timeout destroy_process_group get_backend get_backend_config
        get_global_rank get_group_rank get_node_local_rank get_process_group_ranks get_rank get_world_size group init_process_group
        is_available is_initialized new_group new_subgroups""",
    "collectives": """all_gather all_gather_into_tensor all_reduce all_to_all all_to_all_single barrier broadcast gather
        monitored_barrier reduce reduce_scatter reduce_scatter_tensor scatter""",
    "messages": "P2POp batch_isend_irecv irecv isend recv send",
    "objects": "all_gather_object broadcast_object_list gather_object scatter_object_list",
    "tensors": "ReduceOp",
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}
_ELSEWHERE = {
    "Work": ("dtrain.comm.work", "Work"),
    "Store": ("dtrain.comm.store", "Store"),
    "TCPStore": ("dtrain.distributed.stores", "TCPStore"),
    "HashStore": ("dtrain.comm.store", "HashStore"),
    "PrefixStore": ("dtrain.comm.store", "PrefixStore"),
    "DistError": ("dtrain.errors", "DistributedError"),
    "DistBackendError": ("dtrain.errors", "DistributedError"),
    "DistNetworkError": ("dtrain.errors", "DistributedError"),
    "DistStoreError": ("dtrain.errors", "DistributedError"),
}
_MODULES = ("buckets", "checkpoint", "collectives", "ddp", "messages", "objects", "process_group", "reducer", "start", "sync", "tensors")


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    return importlib.util.find_spec("mpi4py") is not None


def is_gloo_available() -> bool:
    """True: ``gloo`` names the CPU path."""
    return True


def is_nccl_available() -> bool:
    """False: messages from GPU to GPU over NCCL are not built yet."""
    return False


def is_torchelastic_launched() -> bool:
    """Whether torchrun, or a launcher that speaks its language, started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"dtrain.distributed.{_NAMES[name]}"), name)
    elif name in _ELSEWHERE:
        home, original = _ELSEWHERE[name]
        value = getattr(importlib.import_module(home), original)
    elif name in _MODULES:
        return importlib.import_module(f"dtrain.distributed.{name}")
    else:
        from dtrain.absent import attribute_error

        raise attribute_error("dtrain.distributed", name, [*_NAMES, *_ELSEWHERE, *_MODULES])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_ELSEWHERE, *_MODULES})
