"""The ``mpi`` backend. One node: shared memory that ranks find through MPI. Several: MPI messages, reduced by us.

Only bytes are handed to MPI, so half types, counts over 2^31 and the order of a reduction are ours to get right.
"""

from dtrain.comm.mpi.start import load, mpi_group

__all__ = ["load", "mpi_group"]
