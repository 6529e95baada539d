"""Process groups over arrays: ``single``, ``threads``, ``local`` (processes of one node) and ``mpi``. No tensors here.

``Group`` is the contract all backends keep; ``run_threads`` runs a function on N ranks that are threads.
"""

from dtrain.comm import record
from dtrain.comm.group import Group
from dtrain.comm.single import single_group
from dtrain.comm.threads import run_threads
from dtrain.comm.work import Work

__all__ = ["Group", "Work", "record", "run_threads", "single_group"]
