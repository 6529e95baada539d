"""Everything dtrain calls on CuPy exists in the installed CuPy and takes these arguments; no GPU is needed to ask."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dtrain.backend import namespace
from tests.backend import api_check
from tests.backend.api_check import Use, problem, uses_in
from tests.standin import surface


def with_real_cupy(*command):
    """Output of a Python in which ``cupy`` is the installed one, not the stand-in."""
    env = {**os.environ, "PYTHONPATH": str(api_check.ROOT)}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=120)


def test_cupy_has_all_that_is_used():
    done = with_real_cupy(str(api_check.ROOT / "tests/backend/api_check.py"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scan_sees_the_operations():
    found = {use.path for use in api_check.uses()}
    assert {"exp", "matmul", "where", "sum", "cuda.Device", "asnumpy", "cuda.get_current_stream"} <= found


def test_uses_are_read_with_their_arguments():
    source = "xp.sum(a, axis=1, keepdims=True)\nxp.exp\ncupy().cuda.Device(3)\nmodule.asarray(*a, dtype=d)\nxp.name.upper()\n"
    assert {use[:3] for use in uses_in(source, "cuda_x.py")} == {
        ("sum", 1, ("axis", "keepdims")), ("exp", None, ()), ("cuda.Device", 1, ()), ("asarray", None, ("dtype",)), ("name", None, ()),
    }  # fmt: skip


def fake_sum(a, axis=None, dtype=None, out=None, keepdims=False):
    pass


FAKE = SimpleNamespace(__version__="0", sum=fake_sum, exp=SimpleNamespace(types=["f->f"], nin=1, nout=1), cuda=SimpleNamespace(Device=int))


@pytest.mark.parametrize(
    "use, says",
    [
        (Use("softmax", 1, (), "f:1"), "f:1: CuPy 0 has no softmax"),
        (Use("cuda.Devise", 1, (), "f:2"), "has no cuda.Devise"),
        (Use("sum", 1, ("initial",), "f:3"), "unexpected keyword argument 'initial'"),
        (Use("sum", 6, (), "f:4"), "too many positional"),
        (Use("exp", 1, ("where",), "f:5"), "a ufunc of CuPy takes only"),
        (Use("exp", 3, (), "f:6"), "takes 1 inputs"),
    ],
)
def test_what_cupy_does_not_take_is_reported(use, says):
    assert says in problem(use, FAKE)


@pytest.mark.parametrize("use", [Use("sum", 1, ("axis", "keepdims"), "f"), Use("exp", 2, ("dtype",), "f"), Use("exp", None, (), "f"), Use("cuda.Device", 1, (), "f")])
def test_what_cupy_takes_is_not_reported(use):
    assert problem(use, FAKE) is None


def test_the_stand_in_covers_the_closed_list():
    import cupy

    assert [name for name in namespace.FUNCTIONS + namespace.FORWARD_ONLY if not hasattr(cupy, name)] == []


def test_the_record_of_the_stand_in_is_true_of_the_installed_cupy():
    """Of the version it was recorded from, exactly; of another, no name the stand-in exposes may have gone."""
    code = "import json; from tests.standin.record import surface; print(json.dumps(surface()))"
    done = with_real_cupy("-c", code)
    assert done.returncode == 0, done.stderr
    installed = json.loads(done.stdout)
    if installed["version"] == surface.VERSION:
        assert installed == surface.RECORD
    from tests import standin

    for path, contents in standin.build().items():
        if path in surface.RECORD:
            assert set(contents) <= {*installed[path], "__version__"}, path


def test_overrides_take_what_the_originals_take():
    """The functions dtrain puts in CuPy's place accept the same calls."""
    xp = namespace.for_device("cuda")
    a = xp.asarray(np.arange(6.0).reshape(2, 3))
    assert xp.sort(a, axis=0).shape == xp.cumsum(a, axis=1).shape == xp.tril(a, k=1).shape == (2, 3)
    assert xp.argsort(a, axis=0).shape == (2, 3) and len(xp.where(a > 1)) == 2
