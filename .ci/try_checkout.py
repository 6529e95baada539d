"""Use a checkout that was never installed nor built: it works, in NumPy."""

import os
import warnings

import dtrain
from dtrain.backend import native

assert os.path.dirname(os.path.dirname(os.path.abspath(dtrain.__file__))) == os.getcwd(), dtrain.__file__
assert not native.available(), "this checkout is built"
warnings.simplefilter("ignore")
x = dtrain.tensor([-1.0, 0.0, 2.0], requires_grad=True)
dtrain.nn.functional.gelu(x).sum().backward()
assert abs(float(x.grad[1]) - 0.5) < 1e-6
print("an uninstalled checkout works:", native.why_not())
