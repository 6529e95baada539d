"""Mixed precision: ``autocast`` runs matrix products in a half type and sensitive operations in float32."""

from dtrain.amp.autocast_mode import autocast, is_autocast_enabled

__all__ = ["autocast", "is_autocast_enabled"]


def __getattr__(name: str) -> object:
    from dtrain.absent import attribute_error

    raise attribute_error(__name__, name, globals())
