"""In a rank: run the user's script as ``__main__``, as ``python script.py`` would, and report why it ended if it failed.

A failing rank must not wait for its peers. Python's normal exit runs ``MPI_Finalize``, which waits for ranks that wait for this one;
so the report goes out first, through a pipe to the rank's parent, and only then does the script leave like any Python
program: its atexit handlers run and its files are flushed. The parent ends it if that takes longer than a moment.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
import types
from collections.abc import Callable

from dtrain.errors import LaunchError

_HERE = os.path.dirname(os.path.abspath(__file__))
_TEXT_LIMIT = 48 << 10  # characters of traceback that are kept: what a pipe takes without a reader


def run(kind: str, target: str, args: list[str], report_fd: int) -> None:
    """Run the target; returns when it ends well, else reports and raises SystemExit."""
    sys.argv = [target, *args]
    pid = os.getpid()
    try:
        _START[kind](target)
    except BaseException as error:
        if os.getpid() != pid:  # a child that the script forked: not the rank
            raise
        code = exit_code(error)
        if code == 0:
            return
        _flush()
        _send(report_fd, report(error, code))
        # From here on silent: the launcher shows the traceback, once, at the end.
        raise SystemExit(code) from None


def exit_code(error: BaseException) -> int:
    """What Python's own exit code would be."""
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code & 0xFF if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def report(error: BaseException, code: int) -> dict:
    """The failure as plain values."""
    if isinstance(error, SystemExit):
        said = "" if isinstance(error.code, int) else str(error.code)
        return {"type": "SystemExit", "message": said[:_TEXT_LIMIT], "traceback": "", "code": code, "time": time.time()}
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "__main__"):
        name = f"{type(error).__module__}.{name}"
    try:
        message = str(error)
    except Exception:  # an exception whose own __str__ raises is still a failure to report
        message = "(its message cannot be printed)"
    return {"type": name, "message": message[:4096], "traceback": _traceback(error), "code": code, "time": time.time()}


def _traceback(error: BaseException) -> str:
    import traceback  # only on the way out

    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    if len(text) <= _TEXT_LIMIT:
        return text
    half = _TEXT_LIMIT // 2
    return f"{text[:half]}\n  [... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _is_ours(filename: str) -> bool:
    return os.path.dirname(os.path.abspath(filename)) == _HERE or filename.startswith("<frozen runpy") or filename.endswith("/runpy.py")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # closed by the script, or None
            pass


def _send(fd: int, values: dict) -> None:
    try:
        # surrogateescape and the like cannot break JSON: it is ASCII.
        os.write(fd, json.dumps(values).encode() + b"\n")
        os.close(fd)
    except OSError:  # the parent is gone; then nobody waits for a report
        pass


# ------------------------------------------------------------------------------------------------- ways to start a target


def _start_script(path: str) -> None:
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        import runpy

        _first_on_path(None)  # run_path puts the folder or archive there itself
        runpy.run_path(path, run_name="__main__")
        return
    _first_on_path(os.path.dirname(os.path.realpath(path)))
    main = types.ModuleType("__main__")
    main.__file__ = os.path.abspath(path)
    main.__dict__.update(__builtins__=builtins, __cached__=None, __spec__=None, __annotations__={})
    sys.modules["__main__"] = main
    with open(path, "rb") as file:
        code = compile(file.read(), main.__file__, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _first_on_path(folder: str | None) -> None:
    """Put ``folder`` where Python puts a script's; what stood there, the folder of dtrain itself, moves to the end if it is needed."""
    package_root = sys.path.pop(0)
    if folder is not None:
        sys.path.insert(0, folder)
    if package_root not in sys.path:
        sys.path.append(package_root)


def _start_module(name: str) -> None:
    import runpy

    _first_on_path(os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _start_program(path: str) -> None:
    try:
        os.execvp(path, sys.argv)
    except OSError as error:
        raise LaunchError(f"cannot run {path!r}: {error.strerror}") from None


_START: dict[str, Callable[[str], None]] = {"script": _start_script, "module": _start_module, "program": _start_program}
