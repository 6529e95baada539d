"""`torch.utils.data`'s module path; everything lives in `dtrain.data`."""

from dtrain.data import *  # noqa: F401,F403
from dtrain.data import __all__  # noqa: F401
from dtrain.data.worker import WorkerInfo  # noqa: F401
