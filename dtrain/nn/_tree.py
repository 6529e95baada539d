"""Walking the tree of modules: names, children, lookups by path."""

from __future__ import annotations

from typing import Any, Callable, Iterator

from dtrain.errors import ArgumentError


class TreeMixin:
    """Names and traversal. Shared parameters and modules are met once, under their first name."""

    def named_modules(self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """(path, module) of this module (path ``prefix``) and all below it, parents first."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Any]:
        """This module and all below it."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Any]]:
        """(name, module) of the direct submodules."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Any]:
        """The direct submodules."""
        for _, module in self.named_children():
            yield module

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """(path, parameter) of this module and, with ``recurse``, of all below it."""
        return self._named_members(lambda module: module._parameters.items(), prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        """The parameters of this module and, with ``recurse``, of all below it."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Any]]:
        """(path, buffer) of this module and, with ``recurse``, of all below it."""
        return self._named_members(lambda module: module._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        """The buffers of this module and, with ``recurse``, of all below it."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _named_members(
        self, members: Callable, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, value in members(module):
                if value is None or value in seen:
                    continue
                if remove_duplicate:
                    seen.add(value)
                yield f"{path}.{name}" if path else name, value

    # -- lookups by path --------------------------------------------------------------------------------------------
    def get_submodule(self, target: str) -> Any:
        """The module at the path ``target`` ("encoder.layers.0"; "" is this module). AttributeError says how far the path leads."""
        module: Any = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                have = ", ".join(map(repr, module._modules)) or "none"
                raise AttributeError(f"{type(module).__name__} has no submodule {name!r} (path {target!r}); its submodules: {have}")
            module = found
        return module

    def set_submodule(self, target: str, module: Any, strict: bool = False) -> None:
        """Put ``module`` at the path ``target``; with ``strict`` only where a module is already."""
        path, _, name = target.rpartition(".")
        if not target or not name:
            raise ArgumentError(f"set_submodule needs the path of a submodule, got {target!r}")
        parent = self.get_submodule(path)
        if strict and name not in parent._modules:
            raise AttributeError(f"{type(parent).__name__} has no submodule {name!r} (path {target!r})")
        setattr(parent, name, module)

    def get_parameter(self, target: str) -> Any:
        """The parameter at the path ``target``; AttributeError if there is none."""
        return self._member(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> Any:
        """The buffer at the path ``target``; AttributeError if there is none."""
        return self._member(target, "_buffers", "buffer")

    def _member(self, target: str, table: str, what: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        members = getattr(module, table)
        if members.get(name) is None:
            have = ", ".join(repr(n) for n, value in members.items() if value is not None) or "none"
            raise AttributeError(f"{type(module).__name__} has no {what} {name!r} (path {target!r}); its {what}s: {have}")
        return members[name]

    # -- the same for all modules -----------------------------------------------------------------------------------
    def apply(self, fn: Callable[[Any], None]) -> Any:
        """Call ``fn`` with every module, children first. Returns self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def train(self, mode: bool = True) -> Any:
        """Training (True) or evaluation mode of this module and all below it. Returns self."""
        if not isinstance(mode, bool):
            raise ArgumentError(f"train() takes True or False, got {mode!r}")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Any:
        """Evaluation mode: dropout off, running statistics used. Returns self."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Train (or freeze) all parameters. Returns self."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or with ``set_to_none=False`` make them zero."""
        for param in self.parameters():
            grad = param._grad
            if grad is None:
                continue
            if set_to_none:
                param._grad = None
            else:
                param._grad = grad.detach()
                param._grad.zero_()
