"""Switches for recording the graph, each a context manager and a decorator; per thread."""

from __future__ import annotations

import functools
from typing import Any, Callable

from dtrain.backend.state import local


_GENERATOR = 0x20  # inspect.CO_GENERATOR, without the 15 ms that importing inspect takes


class _Mode:
    """Base: sets the grad mode on entry, puts it back on exit, also around functions and generators."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(local.grad_enabled)
        local.grad_enabled = self.enabled

    def __exit__(self, *exc: Any) -> None:
        local.grad_enabled = self._before.pop()

    def __call__(self, function: Callable) -> Callable:
        if getattr(getattr(function, "__code__", None), "co_flags", 0) & _GENERATOR:
            return self._wrap_generator(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._copy():
                return function(*args, **kwargs)

        return call

    def _wrap_generator(self, function: Callable) -> Callable:
        """Only the generator's own code runs in the mode, not that of its consumer."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            with self._copy():
                try:
                    value = next(generator)
                except StopIteration as stop:
                    return stop.value
            while True:
                try:
                    sent = yield value
                except GeneratorExit:
                    generator.close()
                    raise
                with self._copy():
                    try:
                        value = generator.send(sent)
                    except StopIteration as stop:
                        return stop.value

        return call

    def _copy(self) -> "_Mode":
        other = object.__new__(type(self))
        _Mode.__init__(other, self.enabled)
        return other


class no_grad(_Mode):
    """Nothing is recorded inside. ``with no_grad():``, ``@no_grad()`` or ``@no_grad``."""

    def __new__(cls, function: Callable | None = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made, False)
        return made(function)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(no_grad):
    """Recording is on inside, also within ``no_grad``."""

    def __new__(cls, function: Callable | None = None) -> Any:
        made = object.__new__(cls)
        if function is None:
            return made
        _Mode.__init__(made, True)
        return made(function)

    def __init__(self) -> None:
        _Mode.__init__(self, True)


class inference_mode(no_grad):
    """As ``no_grad``; accepted for its name. ``inference_mode(False)`` records."""

    def __new__(cls, mode: Any = True) -> Any:
        if callable(mode):
            return no_grad()(mode)
        return object.__new__(cls)

    def __init__(self, mode: bool = True) -> None:
        _Mode.__init__(self, not mode and local.grad_enabled)


class set_grad_enabled(_Mode):
    """Recording on or off from this call on; as a context manager, until its end."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._before.append(local.grad_enabled)
        local.grad_enabled = self.enabled

    def __enter__(self) -> None:
        return None

    def __call__(self, function: Callable) -> Callable:
        local.grad_enabled = self._before.pop()
        return _Mode(self.enabled)(function)


def is_grad_enabled() -> bool:
    """Whether operations are recorded in this thread now."""
    return local.grad_enabled
