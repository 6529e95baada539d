"""Train a GPT on Python's own standard library, on one rank or many, and export it to ONNX.

    python examples/gpt/train.py                          one process
    dtrain run -n 2 examples/gpt/train.py                 two ranks over MPI
    mpirun -n 2 python examples/gpt/train.py              the same, by mpirun itself
    dtrain run -n 2 examples/gpt/train.py --resume        go on from the newest checkpoint
    dtrain run -n 2 examples/gpt/train.py --autocast bf16

It writes into --out: metrics.jsonl, loss.png, sample.txt, model.onnx and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path

import corpus
import numpy as np
from model import GPT, Config, generate
from tqdm import tqdm

import dtrain
import dtrain.distributed as dist
from dtrain import nn, optim
from dtrain.data import TokenLoader
from dtrain.distributed.checkpoint import Checkpointer, restore_rng_state, rng_state
from dtrain.nn import functional as F
from dtrain.nn.parallel import DistributedDataParallel as DDP

SMOKE = os.environ.get("DTRAIN_SMOKE") == "1"  # a few steps, to see that everything works

STEPS = 30 if SMOKE else 1600  # about two minutes on two laptop cores
GLOBAL_BATCH = 8  # sequences a step over all ranks: the loss curve does not depend on how many share them
LEARNING_RATE = 3e-3  # high, since the model is small and the run short
WARMUP = 5 if SMOKE else 100  # steps to reach it: Adam's second moments need some gradients first
WEIGHT_DECAY = 0.1  # on matrices only; norms and biases have few values and need none
BETAS = (0.9, 0.95)  # a shorter memory for the second moment than Adam's default: short runs
CLIP = 1.0  # one odd batch must not throw the run off
EVAL_EVERY = 15 if SMOKE else 250
EVAL_WINDOWS = 32 if SMOKE else 256  # held-out sequences an evaluation looks at
SEED = 1337


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--global-batch", type=int, default=GLOBAL_BATCH)
    parser.add_argument("--micro-batches", type=int, default=1, help="parts a rank's share of the batch is accumulated in")
    parser.add_argument("--context", type=int, default=Config.context, help="bytes the model sees at once")
    parser.add_argument("--layers", type=int, default=Config.layers)
    parser.add_argument("--width", type=int, default=Config.width)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (each rank takes the GPU of its local rank)")
    parser.add_argument("--autocast", choices=["off", "bf16"], default="off")
    parser.add_argument("--out", type=Path, default=Path("runs/gpt"))
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--stop-after", type=int, help="stop at this step, as if the job's time were up (to try --resume)")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--no-artifacts", action="store_true", help="train only: no sample, plot or ONNX at the end")
    return parser.parse_args()


def learning_rate(step: int, steps: int) -> float:
    """A factor: linear warm-up, then half a cosine down to a tenth."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))


def make_optimizer(model: nn.Module) -> optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS)


@dtrain.no_grad()
def evaluate(model: nn.Module, loader: TokenLoader, device: str) -> float:
    """Nats per byte over the first held-out windows; every rank takes its share."""
    model.eval()
    total = dtrain.zeros(2, dtype=dtrain.float64)
    for step in range(min(len(loader), EVAL_WINDOWS // loader.global_batch_size)):
        x, y = (t.to(device) for t in loader.batch(0, step))
        total[0] += F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
        total[1] += y.numel()
    model.train()
    dist.all_reduce(total)
    return (total[0] / total[1]).item()


def main() -> None:
    args = arguments()
    dist.init_process_group()
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = args.device if args.device == "cpu" else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    dtrain.manual_seed(SEED)

    if rank == 0:
        corpus.build(args.out / "corpus")
    dist.barrier()
    train_tokens, val_tokens = corpus.load(args.out / "corpus")
    config = Config(context=args.context, layers=args.layers, width=args.width, dropout=args.dropout)
    loader = TokenLoader(train_tokens, args.global_batch, config.context, rank, ranks, SEED, micro_batches=args.micro_batches)
    held_out = TokenLoader(val_tokens, args.global_batch, config.context, rank, ranks, SEED)

    model = GPT(config).to(device)
    optimizer = make_optimizer(model)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, args.steps))
    ddp = DDP(model)
    dtrain.manual_seed(SEED + rank)  # the ranks now differ: each draws dropout masks of its own
    autocast = dtrain.autocast(device.split(":")[0], dtrain.bfloat16) if args.autocast == "bf16" else nullcontext()

    def state() -> dict:
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "loader": loader.state_dict()}

    checkpoints = Checkpointer(args.out / "checkpoints", every=args.save_every, keep=2, group=dist.group.WORLD)
    start = 0
    if args.resume and (found := checkpoints.resume()) is not None:
        model.load_state_dict(found.state["model"])
        optimizer.load_state_dict(found.state["optimizer"])
        schedule.load_state_dict(found.state["schedule"])
        loader.load_state_dict(found.state["loader"])
        if found.per_rank is not None:
            restore_rng_state(found.per_rank["rng"])
        start = found.step

    say = print if rank == 0 else lambda *_: None
    say(f"corpus: {len(train_tokens):,} bytes to train on, {len(val_tokens):,} held out, sha256 {train_tokens.sha256[:16]}")
    say(f"model: {sum(p.numel() for p in model.parameters()):,} parameters; {ranks} ranks; steps {start} to {args.steps}")
    log = (args.out / "metrics.jsonl").open("a" if start else "w") if rank == 0 else None
    bar = tqdm(total=args.steps, initial=start, disable=rank != 0, unit="step", mininterval=1, dynamic_ncols=True)
    batches = loader.forever()
    last = min(args.steps, args.stop_after or args.steps)
    seen, began = 0, time.perf_counter()

    for step in range(start + 1, last + 1):
        loss = dtrain.zeros(1)
        for i, (x, y) in enumerate(next(batches)):
            final = i == args.micro_batches - 1
            with nullcontext() if final else ddp.no_sync():
                with autocast:
                    part = F.cross_entropy(ddp(x.to(device)).flatten(0, 1), y.to(device).flatten()) / args.micro_batches
                part.backward()
                loss += part.detach().cpu()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        dist.all_reduce(loss, op=dist.ReduceOp.AVG)

        seen += args.global_batch * config.context
        entry = {"step": step, "loss": loss.item(), "lr": schedule.get_last_lr()[0], "tokens_per_second": seen / (time.perf_counter() - began)}
        if step % EVAL_EVERY == 0 or step == args.steps:
            entry["val_loss"] = evaluate(model, held_out, device)
        if rank == 0:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix(loss=f"{entry['loss']:.3f}", tok_s=f"{entry['tokens_per_second']:,.0f}", refresh=False)
            if "val_loss" in entry:
                bar.write(f"step {step}: {entry['val_loss']:.4f} nats per byte on held-out files")
        checkpoints.maybe_save(step, state, lambda: {"rng": rng_state()})

    bar.close()
    checkpoints.save(last, state, {"rng": rng_state()})
    if rank == 0 and last == args.steps and not args.no_artifacts:
        finish(model.to("cpu"), config, args.out)
    dist.barrier()
    dist.destroy_process_group()


def finish(model: GPT, config: Config, out: Path) -> None:
    """Sampled text, the loss curve and the ONNX model, checked against onnxruntime."""
    text = generate(model, b"def ", 400, generator=dtrain.Generator().manual_seed(SEED)).decode(errors="replace")
    (out / "sample.txt").write_text(text)
    print(f"--- a sample\n{text}\n---")
    plot(out)
    export(model.eval(), config, out / "model.onnx")
    print(f"wrote {out}/metrics.jsonl, sample.txt, loss.png, model.onnx and checkpoints/")


def plot(out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    entries = [json.loads(line) for line in (out / "metrics.jsonl").open()]
    held_out = [e for e in entries if "val_loss" in e]
    plt.figure(figsize=(7, 4))
    plt.plot([e["step"] for e in entries], [e["loss"] for e in entries], lw=0.7, label="training batch")
    plt.plot([e["step"] for e in held_out], [e["val_loss"] for e in held_out], "o-", label="held-out files")
    plt.xlabel("step")
    plt.ylabel("nats per byte")
    plt.legend()
    plt.savefig(out / "loss.png", dpi=120, bbox_inches="tight")


def export(model: GPT, config: Config, path: Path) -> None:
    import onnxruntime

    example = dtrain.zeros(2, 16, dtype=dtrain.int64)
    dtrain.onnx.export(
        model, (example,), path, input_names=["tokens"], output_names=["logits"], dynamic_axes={"tokens": {0: "batch", 1: "time"}}
    )
    session = onnxruntime.InferenceSession(str(path))
    for batch, length in ((1, config.context), (3, 7)):
        tokens = np.random.default_rng(0).integers(0, config.vocab, (batch, length))
        with dtrain.no_grad():
            ours = model(dtrain.from_numpy(tokens)).numpy()
        theirs = session.run(["logits"], {"tokens": tokens})[0]
        print(f"ONNX at batch {batch}, length {length}: largest difference of logits {np.abs(ours - theirs).max():.2e}")


if __name__ == "__main__":
    main()
