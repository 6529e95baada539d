"""PyTorch's collectives over Python objects, pickled between the ranks of one job."""

from __future__ import annotations

from typing import Any

from dtrain.comm.group import Group
from dtrain.distributed.process_group import member, root_of
from dtrain.errors import ArgumentError


def all_gather_object(object_list: list[Any], obj: Any, group: Group | None = None) -> None:
    """Put the objects of all ranks into ``object_list``, which has one place per rank."""
    found = member(group, "all_gather_object")
    if found is not None:
        _places(object_list, found.size, "object_list")
        object_list[:] = found.all_gather_object(obj)


def gather_object(obj: Any, object_gather_list: list[Any] | None = None, dst: int | None = None, group: Group | None = None,
                  group_dst: int | None = None) -> None:
    """Put the objects of all ranks into ``object_gather_list`` of rank ``dst``."""
    found = member(group, "gather_object")
    if found is None:
        return
    root = root_of(found, dst, group_dst, "dst")
    if found.rank == root:
        _places(object_gather_list, found.size, "object_gather_list")
    objects = found.gather_object(obj, root)
    if objects is not None:
        object_gather_list[:] = objects


def broadcast_object_list(object_list: list[Any], src: int | None = None, group: Group | None = None, device: Any = None,
                          group_src: int | None = None) -> None:
    """Put the objects of rank ``src`` into ``object_list`` of all."""
    found = member(group, "broadcast_object_list")
    if found is None:
        return
    objects = found.broadcast_object(list(object_list), root_of(found, src, group_src, "src"))
    _places(object_list, len(objects), "object_list")
    object_list[:] = objects


def scatter_object_list(scatter_object_output_list: list[Any], scatter_object_input_list: list[Any] | None = None,
                        src: int | None = None, group: Group | None = None, group_src: int | None = None) -> None:
    """Put the i-th object of rank ``src`` into the first place of ``scatter_object_output_list`` of rank i."""
    found = member(group, "scatter_object_list")
    if found is None:
        return
    if not isinstance(scatter_object_output_list, list) or not scatter_object_output_list:
        raise ArgumentError("scatter_object_output_list must be a list with at least one place")
    scatter_object_output_list[0] = found.scatter_object(scatter_object_input_list, root_of(found, src, group_src, "src"))


def _places(places: Any, count: int, name: str) -> None:
    if not isinstance(places, list) or len(places) != count:
        found = len(places) if isinstance(places, list) else type(places).__name__
        raise ArgumentError(f"{name} must be a list of {count} places; got {found}")
