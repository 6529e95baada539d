"""The default group of a rank, and groups within it, under PyTorch's names. A process group is a ``dtrain.comm.Group``."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dtrain.backend import state
from dtrain.comm import failure, threads
from dtrain.comm.group import DEFAULT_TIMEOUT, Group
from dtrain.comm.work import seconds
from dtrain.distributed.start import BACKENDS, make_world
from dtrain.errors import ArgumentError, DistributedError, NotInitialized

if TYPE_CHECKING:
    from dtrain.comm.store import Store

_AT_EXIT = 10.0             # seconds that the end of a script waits for collectives nobody waited for
default_pg_timeout = timedelta(seconds=DEFAULT_TIMEOUT)
ProcessGroup = Group


class Backend(str):
    """Names of backends. All but ``nccl`` are the CPU path; GPU tensors are staged through the host there."""

    MPI, GLOO, NCCL, LOCAL, SINGLE, THREADS, UNDEFINED = *BACKENDS, "undefined"
    backend_list = [UNDEFINED, *BACKENDS]

    def __new__(cls, name: str) -> Backend:
        if not isinstance(name, str):
            raise ArgumentError(f"a backend is named by a string, not {name!r}")
        return str.__new__(cls, name.lower())


class Count(int):
    """A number that can also be called for its value: ``group.rank`` here, ``group.rank()`` in PyTorch's scripts."""

    def __call__(self) -> int:
        return int(self)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return int, (int(self),)


class _World(type):
    """Makes ``group.WORLD`` the default group of the calling rank."""

    @property
    def WORLD(cls) -> Group | None:  # noqa: N802
        return state.local.rank.group


class group(metaclass=_World):  # noqa: N801
    """``group.WORLD`` is the default group."""


class GroupMember(metaclass=_World):
    """``WORLD`` as in ``group``; ``NON_GROUP_MEMBER`` is what ``new_group`` returns on ranks outside."""

    NON_GROUP_MEMBER = -100


# -- the default group -------------------------------------------------------------------------------

def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: timedelta | float | None = None,
    world_size: int = -1,
    rank: int = -1,
    store: Store | None = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
) -> None:
    """Join the job's other ranks; afterwards the collectives of this module work.

    Without arguments it finds them by itself: MPI where MPI started the job, RANK, WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT on one node, a world of one where nothing was started. ``init_method`` is ``env://``,
    ``tcp://host:port`` or ``file:///path``. ``timeout`` (30 minutes) is the deadline of every collective. Raises
    LaunchError where launcher and MPI disagree or ranks on several hosts lack MPI, DistributedError naming ranks that do not come.
    """
    if is_initialized():
        raise DistributedError("the default process group is already initialised; call destroy_process_group first")
    limit = DEFAULT_TIMEOUT if timeout is None else seconds(timeout)
    if not isinstance(limit, (int, float)) or limit <= 0:
        raise ArgumentError(f"timeout must be a timedelta or seconds above 0, not {timeout!r}")
    if store is not None and init_method is not None:
        raise ArgumentError("pass init_method or store, not both")
    if store is not None:
        from dtrain.comm.store import PrefixStore

        count = store.add(f"dtrain/init/{rank}", 1)         # the same store can serve several worlds, one after the other
        store = PrefixStore(f"dtrain/world{count}", store)
    world = make_world(os.environ, backend, init_method, limit, world_size, rank, store)
    state.local.rank.group = _callable(world)
    if threads.current() is None:
        atexit.register(_leave, world, _AT_EXIT)
        if world.size > 1:
            failure.install(world.rank)


def _callable(made: Group) -> Group:
    made.rank, made.size = Count(made.rank), Count(made.size)
    made.subgroups = []
    return made


def _leave(world: Group, timeout: float | None = None) -> None:
    for sub in [*world.subgroups, world]:
        sub.close(timeout)


def destroy_process_group(group: Group | None = None) -> None:
    """Leave ``group``; the default group and all others if None."""
    world = resolve(None)
    if group is None or group is world:
        _leave(world)
        if threads.current() is None:
            atexit.unregister(_leave)
        state.local.rank.group = None
    elif _is_member(group):
        group.close()


def is_available() -> bool:
    """True: there is always a world of one."""
    return True


def is_initialized() -> bool:
    """Whether this rank has a default group."""
    return state.local.rank.group is not None


def resolve(group: Group | None) -> Group:
    """``group``, or the default group if None."""
    if group is None:
        group = state.local.rank.group
        if group is None:
            raise NotInitialized("the default process group is not initialised; call dtrain.distributed.init_process_group() first")
    if not isinstance(group, Group):
        raise ArgumentError(f"expected a process group, not {group!r}; new_group returns one on its members")
    return group


def member(group: Group | None, action: str) -> Group | None:
    """``resolve(group)``; None, with a warning, where this rank is not a member."""
    if group == GroupMember.NON_GROUP_MEMBER:
        warnings.warn(f"{action} does nothing: this rank is not a member of the group", stacklevel=3)
        return None
    return resolve(group)


def _is_member(group: Any) -> bool:
    return group is None or isinstance(group, Group)


# -- who am I ----------------------------------------------------------------------------------------

def get_rank(group: Group | None = None) -> int:
    """This rank's number in ``group``; -1 if it is not a member."""
    return int(resolve(group).rank) if _is_member(group) else -1


def get_world_size(group: Group | None = None) -> int:
    """The number of ranks in ``group``; -1 if this rank is not a member."""
    return int(resolve(group).size) if _is_member(group) else -1


def get_backend(group: Group | None = None) -> Backend:
    """The name of the backend of ``group``: what was asked for, or what was chosen."""
    return Backend(resolve(group).backend)


def get_backend_config(group: Group | None = None) -> str:
    """The backend per device type; all use the same here."""
    name = get_backend(group)
    return f"cpu:{name},cuda:{name}"


def get_process_group_ranks(group: Group | None) -> list[int]:
    """The ranks of the world that form ``group``, in its order."""
    return list(resolve(group).ranks)


def get_global_rank(group: Group, group_rank: int) -> int:
    """The rank in the world of rank ``group_rank`` of ``group``."""
    found = resolve(group)
    if not 0 <= group_rank < found.size:
        raise ArgumentError(f"group_rank={group_rank} is not a rank of a group of {found.size}")
    return found.ranks[group_rank]


def get_group_rank(group: Group, global_rank: int) -> int:
    """The rank in ``group`` of rank ``global_rank`` of the world."""
    found = resolve(group)
    if global_rank not in found.ranks:
        raise ArgumentError(f"rank {global_rank} of the world is not in the group of ranks {list(found.ranks)}")
    return found.ranks.index(global_rank)


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """This rank's number among those of its node."""
    from dtrain import env

    if fallback_rank is not None and "LOCAL_RANK" not in os.environ:
        return fallback_rank
    return env.resolve(os.environ).local_rank


def root_of(group: Group, rank: int | None, group_rank: int | None, name: str, default: int | None = 0) -> int | None:
    """The group's number of a root or peer given as ``rank`` of the world or ``group_rank`` of the group."""
    if rank is not None and group_rank is not None:
        raise ArgumentError(f"pass {name} or group_{name}, not both")
    if group_rank is not None:
        return group_rank
    if rank is None:
        rank = default
    return None if rank is None else get_group_rank(group, rank)


# -- groups within the world -------------------------------------------------------------------------

def new_group(
    ranks: Sequence[int] | None = None,
    timeout: timedelta | float | None = None,
    backend: str | None = None,
    pg_options: Any = None,
    use_local_synchronization: bool = False,
    group_desc: str | None = None,
    device_id: Any = None,
) -> Any:
    """A group of these ranks of the world, numbered in ascending order. All ranks of the world must call it.

    Ranks outside get ``GroupMember.NON_GROUP_MEMBER``.
    """
    world = resolve(None)
    if backend is not None and backend.lower() not in BACKENDS:
        raise ArgumentError(f"unknown backend {backend!r}; known are {', '.join(BACKENDS)}")
    if ranks is not None and any(not 0 <= r < world.size for r in ranks):
        raise ArgumentError(f"ranks of a new group must be between 0 and {world.size - 1}, not {list(ranks)}")
    made = world.new_group(None if ranks is None else sorted(ranks), group_desc, seconds(timeout))
    if made is None:
        return GroupMember.NON_GROUP_MEMBER
    world.subgroups.append(_callable(made))
    return made


def new_subgroups(group_size: int | None = None, group: Group | None = None, timeout: timedelta | float | None = None,
                  backend: str | None = None, pg_options: Any = None, group_desc: str | None = None) -> tuple[Group, list[Any]]:
    """The world cut into groups of ``group_size`` consecutive ranks; returns (the own one, all of them)."""
    world = resolve(group)
    if not group_size or group_size < 0 or world.size % group_size:
        raise ArgumentError(f"group_size={group_size} must divide the world of {world.size} ranks")
    cuts = [list(range(low, low + group_size)) for low in range(0, world.size, group_size)]
    groups = [new_group(cut, timeout, backend, pg_options, group_desc=group_desc) for cut in cuts]
    return next(g for g in groups if isinstance(g, Group)), groups
