"""Training checkpoints: safetensors and a sealed manifest, never pickle; complete or absent, every flipped bit noticed.

A checkpoint is the folder `step-00000120`: one `<key>.safetensors` for each top-level key of the state, `rank-00003.safetensors`
for what a rank saved for itself, and `manifest.json` with everything else and all checksums.
"""

from dtrain.distributed.checkpoint.checkpointer import Checkpointer
from dtrain.distributed.checkpoint.inspect import Description, Difference, compare, describe
from dtrain.distributed.checkpoint.loading import Checkpoint, latest, load
from dtrain.distributed.checkpoint.rng import restore_rng_state, rng_state
from dtrain.distributed.checkpoint.saving import save
from dtrain.errors import CheckpointError

__all__ = ["Checkpoint", "CheckpointError", "Checkpointer", "Description", "Difference", "compare", "describe", "latest", "load",
           "restore_rng_state", "rng_state", "save"]
