"""How a rank runs its script and what it reports of a failure; each script in a Python of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain.launcher import script

ROOT = Path(__file__).parents[2]
HARNESS = """
import os, sys
sys.path[0] = {root!r}
from dtrain.launcher import script
reader, writer = os.pipe()
try:
    script.run({kind!r}, {target!r}, {args!r}, writer)
finally:
    try:
        os.close(writer)
    except OSError:
        pass
    os.set_blocking(reader, False)
    try:
        found = os.read(reader, 1 << 16)
    except BlockingIOError:  # in a child that the script forked, while the rank holds the writing end
        found = b""
    with open({out!r}, "wb") as file:
        file.write(found)
"""


def run(tmp_path, source: str, *args: str, kind: str = "script", target: str | None = None):
    """(completed process, report or None) of a script run as a rank runs it."""
    (tmp_path / "work").mkdir(exist_ok=True)
    path = tmp_path / "work" / "train.py"
    path.write_text(source)
    out = tmp_path / "report"
    code = HARNESS.format(root=str(ROOT), kind=kind, target=target or str(path), args=list(args), out=str(out))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=tmp_path / "work")
    return done, json.loads((out.exists() and out.read_text()) or "null")


def test_a_script_finds_what_python_script_py_would_give_it(tmp_path):
    source = "import sys, os, json; print(json.dumps([sys.argv, sys.path[0], __name__, __file__, __spec__, sys.modules['__main__'].__dict__ is globals()]))"
    done, report = run(tmp_path, source, "--lr", "1")
    path = str(tmp_path / "work" / "train.py")
    assert json.loads(done.stdout) == [[path, "--lr", "1"], str(tmp_path / "work"), "__main__", path, None, True]
    assert done.returncode == 0 and report is None
    plain = subprocess.run([sys.executable, path, "--lr", "1"], capture_output=True, text=True, timeout=30)
    assert json.loads(plain.stdout) == json.loads(done.stdout)


def test_modules_beside_the_script_are_found(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "helper.py").write_text("value = 3\n")
    done, _ = run(tmp_path, "import helper, dtrain; print(helper.value)")
    assert done.stdout == "3\n", done.stderr


def test_classes_of_the_script_can_be_pickled(tmp_path):
    done, _ = run(tmp_path, "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)")
    assert done.stdout == "True\n", done.stderr


def test_loader_workers_started_by_spawn_find_the_script(tmp_path):
    source = """
import multiprocessing
def double(x): return 2 * x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [1, 2]))
"""
    done, _ = run(tmp_path, source)
    assert done.stdout == "[2, 4]\n", done.stderr


def test_modules_and_folders(tmp_path):
    done, _ = run(tmp_path, "import sys; print(__name__, sys.path[0], sys.argv[1:])", "x", kind="module", target="train")
    assert done.stdout == f"__main__ {tmp_path / 'work'} ['x']\n", done.stderr
    (tmp_path / "work" / "app").mkdir()
    (tmp_path / "work" / "app" / "__main__.py").write_text("print('app', __name__)\n")
    done, _ = run(tmp_path, "", target="app")
    assert done.stdout == "app __main__\n", done.stderr


def test_programs(tmp_path):
    done, _ = run(tmp_path, "", "a b", kind="program", target="echo")
    assert done.stdout == "a b\n"
    done, report = run(tmp_path, "", kind="program", target="no-such-program")
    assert done.returncode == 1 and report["message"] == "cannot run 'no-such-program': No such file or directory"


def test_an_exception_is_reported_and_not_printed(tmp_path):
    done, report = run(tmp_path, "def f():\n    raise KeyError('missing')\n\nf()\n")
    assert (report["type"], report["message"], report["code"], done.returncode) == ("KeyError", "'missing'", 1, 1)
    assert done.stderr == ""
    lines = report["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[1].endswith('train.py", line 4, in <module>')
    assert lines[-1] == "KeyError: 'missing'"
    assert "launcher" not in report["traceback"]


def test_syntax_errors_and_chains(tmp_path):
    _, report = run(tmp_path, "x = (\n")
    assert report["type"] == "SyntaxError" and "train.py" in report["traceback"]
    _, report = run(tmp_path, "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('so') from e\n")
    assert "ZeroDivisionError" in report["traceback"] and report["traceback"].endswith("RuntimeError: so\n")


@pytest.mark.parametrize("call, code, message", [("sys.exit(3)", 3, ""), ("sys.exit('no data')", 1, "no data"), ("sys.exit(256 + 7)", 7, ""), ("sys.exit(-1)", 255, "")])
def test_sys_exit(tmp_path, call, code, message):
    done, report = run(tmp_path, f"import sys; {call}")
    assert (done.returncode, report["type"], report["code"], report["message"]) == (code, "SystemExit", code, message)


@pytest.mark.parametrize("call", ["sys.exit()", "sys.exit(0)", "sys.exit(None)"])
def test_a_good_exit_reports_nothing(tmp_path, call):
    done, report = run(tmp_path, f"import sys; {call}")
    assert (done.returncode, report) == (0, None)


def test_output_comes_before_the_report_and_atexit_still_runs(tmp_path):
    source = "import atexit, sys\natexit.register(print, 'bye')\nlog = open('log', 'w'); log.write('last words')\nprint('hello', end='')\nraise ValueError"
    done, report = run(tmp_path, source)
    assert done.stdout == "hellobye\n" and report["type"] == "ValueError"
    assert (tmp_path / "work" / "log").read_text() == "last words"


def test_a_long_report_fits_into_a_pipe(tmp_path):
    done, report = run(tmp_path, "raise ValueError('x' * 1_000_000)")
    assert report["message"] == "x" * 4096 and "characters left out" in report["traceback"] and done.returncode == 1


def test_an_exception_that_cannot_be_printed(tmp_path):
    _, report = run(tmp_path, "class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E")
    assert report["type"] == "E" and report["message"] == "(its message cannot be printed)"


def test_a_child_that_the_script_forks_is_not_the_rank(tmp_path):
    done, report = run(tmp_path, "import os\npid = os.fork()\nif pid == 0:\n    raise ValueError('in the child')\nos.waitpid(pid, 0)\n")
    assert done.returncode == 0 and report is None and "in the child" in done.stderr


def test_exit_codes():
    assert [script.exit_code(error) for error in (SystemExit(), SystemExit(5), SystemExit("x"), ValueError(), KeyboardInterrupt())] == [0, 5, 1, 1, 130]


def test_names_of_errors():
    from dtrain.errors import ShapeError

    assert script.report(ShapeError("m"), 1)["type"] == "dtrain.errors.ShapeError"
    assert script.report(ValueError("m"), 1)["type"] == "ValueError"
    assert os.path.dirname(script.__file__) == script._HERE
