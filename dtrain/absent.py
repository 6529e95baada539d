"""What PyTorch users will look for and dtrain has not built yet: the names, so that the error can say so."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NAMES: dict[str, str] = {
    "dtrain": """linalg fft distributions func special sparse jit fx export hub quantization profiler testing random backends mps xpu accelerator
        compile save load vmap complex polar real imag conj angle stft istft view_as_real view_as_complex cdist cross kron median mode
        quantile nanquantile nanmean nansum nanmedian histc bincount cumprod cummax cummin logcumsumexp searchsorted bucketize unique
        unique_consecutive diff trace diag diagonal diag_embed tensordot inner addmv addr as_strided tensor_split hstack vstack dstack
        column_stack atleast_1d atleast_2d atleast_3d broadcast_tensors cartesian_prod combinations logspace hann_window nan_to_num isin
        scatter_reduce index_fill index_copy masked_scatter argwhere atan2 acosh asinh atanh exp2 fmod lgamma digamma logaddexp xlogy
        logit erfinv sinc hypot fmax fmin copysign gcd lcm outer_product use_deterministic_algorithms set_float32_matmul_precision""",
    "dtrain.nn": """LSTM GRU RNN LSTMCell GRUCell RNNCell MultiheadAttention Transformer TransformerEncoder TransformerEncoderLayer
        TransformerDecoder TransformerDecoderLayer Fold Unfold PixelShuffle PixelUnshuffle Upsample UpsamplingNearest2d
        UpsamplingBilinear2d EmbeddingBag SyncBatchNorm LocalResponseNorm CosineSimilarity PairwiseDistance CosineEmbeddingLoss
        TripletMarginLoss MarginRankingLoss HingeEmbeddingLoss GaussianNLLLoss PoissonNLLLoss CTCLoss AlphaDropout FeatureAlphaDropout
        Softmax2d RReLU LazyLinear LazyConv1d LazyConv2d LazyConv3d LazyBatchNorm1d LazyBatchNorm2d LPPool1d LPPool2d MaxUnpool1d
        MaxUnpool2d FractionalMaxPool2d ChannelShuffle DataParallel AdaptiveLogSoftmaxWithLoss""",
    "dtrain.optim": "Adagrad Adadelta Adamax ASGD LBFGS NAdam RAdam RMSprop Rprop SparseAdam Adafactor Muon swa_utils",
    "dtrain.amp": "GradScaler custom_fwd custom_bwd",
    "dtrain.distributed": """fsdp tensor pipelining device_mesh init_device_mesh DeviceMesh algorithms optim rpc elastic launcher nn autograd
        FileStore split_group send_object_list recv_object_list reduce_scatter_object""",
    "dtrain.utils": "checkpoint tensorboard cpp_extension benchmark dlpack bottleneck collect_env",
    "dtrain.autograd": "functional profiler forward_ad graph anomaly_mode set_detect_anomaly detect_anomaly",
}


def attribute_error(module: str, name: str, known: Iterable[str] = ()) -> AttributeError:
    """What ``module.name`` raises: that PyTorch's thing of that name is not built yet, or the nearest name there is."""
    theirs = "torch" + module.removeprefix("dtrain")
    if name in NAMES.get(module, "").split():
        return AttributeError(f"{module}.{name} is not built yet: {theirs}.{name} has no counterpart in this version of dtrain")
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {module}.{near[0]}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
