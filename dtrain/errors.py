"""Every error dtrain raises on purpose. Each also is the built-in class PyTorch users catch today."""

from __future__ import annotations


class DtrainError(Exception):
    """Base of all. ``where`` grows from the inside out as the error passes through modules."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.where: list[str] = []

    def __str__(self) -> str:
        message = super().__str__()
        return f"in {'.'.join(reversed(self.where))}: {message}" if self.where else message


class ShapeError(DtrainError, RuntimeError):
    """Shapes or strides that do not fit the operation."""


class DtypeError(DtrainError, RuntimeError, TypeError):
    """A dtype the operation does not take."""


class DeviceError(DtrainError, RuntimeError):
    """A device that is absent, or arrays on devices that do not mix."""


class IndexRangeError(DtrainError, IndexError):
    """An index, label or dimension outside its range; names the value and the range."""


class ArgumentError(DtrainError, ValueError):
    """A value an argument does not take."""


class GraphError(DtrainError, RuntimeError):
    """A misuse of autograd: freed graph, modified saved value, leaf written in place."""


class UnsupportedError(DtrainError, RuntimeError):
    """Something PyTorch has and dtrain, deliberately and documented, has not."""


class StateDictError(DtrainError, RuntimeError):
    """A state_dict that does not fit the module or optimizer."""


class ConfigError(DtrainError, ValueError):
    """A setting, flag or environment variable that cannot be used."""


class DataError(DtrainError, RuntimeError):
    """A data set, shard or index that is empty, damaged or inconsistent."""


class CheckpointError(DtrainError, RuntimeError):
    """A checkpoint that is damaged, incomplete or of another model."""


class LaunchError(DtrainError, RuntimeError):
    """A job that could not be started."""


class DistributedError(DtrainError, RuntimeError):
    """A failure of a process group."""


class NotInitialized(DistributedError, ValueError):
    """There is no default process group yet."""


class CollectiveMismatch(DistributedError):
    """Ranks called different collectives, or the same one with other shapes or dtypes."""


class CollectiveTimeout(DistributedError):
    """A collective did not finish within its deadline; names the ranks that were missing."""


class PeerLost(DistributedError):
    """A rank of the group died or aborted."""


class NonFiniteError(DtrainError, RuntimeError):
    """A NaN or an infinity where the caller asked to be told."""
