"""The command line of ``dtrain run``: torchrun's common flags, read into a LaunchSpec.

A flag either does what it says or is refused with a reason: none is accepted and then ignored.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from dtrain.errors import ConfigError
from dtrain.launcher import hosts as hosting
from dtrain.launcher.spec import LaunchSpec, Site, Streams

_EPILOG = """Everything after the script goes to the script. Ranks find RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR
and MASTER_PORT in their environment, as under torchrun. They read nothing from standard input."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        names, colon, rest = message.removeprefix("argument ").partition(": ")
        raise ConfigError(f"{names.partition('/')[0]}: {rest}" if colon and names.startswith("-") else message)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dtrain run",
        usage="dtrain run [-n N] [options] script.py [arguments of the script]",
        description="Start N ranks of a training script and watch over them.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )

    def flag(*names: str, **options) -> None:
        action = parser.add_argument(*names, **options)
        hidden = ["--" + name[2:].replace("-", "_") for name in names if "-" in name[2:]]
        if hidden:  # torchrun takes both spellings; the help shows one
            options |= {"dest": action.dest, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            parser.add_argument(*hidden, **options)

    flag("-n", "-np", "--num-ranks", dest="n", type=_positive, metavar="N", help="number of ranks (default 1, or the tasks of the Slurm allocation)")
    flag("--nproc-per-node", type=_per_node, metavar="K", help="ranks on each node: a number, cpu, gpu or auto")
    flag("--nnodes", metavar="M", help="number of nodes")
    flag("--node-rank", type=_natural, metavar="R", help="0: one `dtrain run` starts all nodes")
    flag("--hosts", metavar="A:K,B:K", help="hosts and how many ranks each takes")
    flag("--hostfile", metavar="FILE", help="the same, one host a line: 'host slots=4' or 'host:4'")
    flag("--backend", choices=("mpi", "local"), help="mpi: through mpirun; local: N plain processes on this host, no MPI needed")
    flag("--master-addr", metavar="HOST", help="where ranks meet (default: the first host)")
    flag("--master-port", type=_port, metavar="PORT", help="the port there (default: a free one)")
    flag("--rdzv-backend", metavar="NAME", help="static or c10d; both mean what MASTER_ADDR says")
    flag("--rdzv-endpoint", metavar="HOST:PORT", help="--master-addr and --master-port in one")
    flag("--rdzv-id", metavar="ID", help="name of the job")
    flag("--standalone", action="store_true", help="this host alone, on a free port")
    flag("--max-restarts", type=_natural, default=0, metavar="0", help="0: a failed job is not restarted")
    flag("--threads-per-rank", type=_positive, metavar="T", help="default: the cores of the host / its ranks")
    flag("-m", "--module", action="store_true", help="the script is a module name, as in python -m")
    flag("--no-python", action="store_true", help="the script is a program")
    flag("--log-dir", metavar="DIR", help="write DIR/<job>/rank<R>/stdout.log and stderr.log")
    flag("--tee", type=_streams, default=Streams(), metavar="S", help="streams for the log files and the screen: 0, 1, 2, 3 or 0:3,1:2")
    flag("--redirects", type=_streams, default=Streams(), metavar="S", help="streams for the log files only")
    flag("--local-ranks-filter", type=_ranks, metavar="0,1", help="show only these local ranks on the screen")
    flag("--no-prefix", action="store_true", help="print lines without [rank N]")
    flag("--grace", type=_seconds, default=10.0, metavar="SEC", help="time ranks get to end after Ctrl-C or SIGTERM (default 10)")
    flag("-q", "--quiet", action="store_true", help="do not print the line that says what is started")
    parser.add_argument("script", nargs="?", help="the training script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def parse(argv: Sequence[str], site: Site) -> LaunchSpec:
    """The LaunchSpec that ``argv`` asks for on ``site``. Raises ConfigError; reads only the script's name and the host file."""
    parser = build_parser()
    given, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise ConfigError(_unknown(unknown[0], parser))
    _refuse(given)
    _check_target(given)
    hosts = _hosts(given, site)
    per_node = _resolve_per_node(given.nproc_per_node, site)
    placed, local = hosting.place(hosts, given.n, per_node, _nnodes(given), site)
    address, port = _meeting_point(given)
    size = sum(host.ranks for host in placed)
    # One rank needs no mpirun, and then no MPI either.
    backend = given.backend or ("local" if local and size == 1 else "mpi")
    if backend == "local" and not local:
        raise ConfigError("--backend local starts processes on this host only; drop it to go through mpirun")
    return LaunchSpec(
        target=given.script,
        args=tuple(given.args),
        kind="module" if given.module else "program" if given.no_python else "script",
        hosts=placed,
        local=local,
        backend=backend,
        run_id=run_id(given.rdzv_id),
        master_addr=address,
        master_port=port or None,
        threads=given.threads_per_rank,
        prefix=not given.no_prefix and size > 1,
        quiet=given.quiet,
        log_dir=given.log_dir,
        tee=given.tee,
        redirects=given.redirects,
        only=given.local_ranks_filter,
        grace=given.grace,
    )


def run_id(name: str | None) -> str:
    """A name for the job that no other job on the host has: it marks the job's processes."""
    head = "".join(c if c.isalnum() or c in "-_." else "-" for c in name) if name else time.strftime("%m%d-%H%M%S")
    return f"{head}-{os.urandom(4).hex()}"


# ------------------------------------------------------------------------------------------------ what has to be refused


def _refuse(given: argparse.Namespace) -> None:
    if given.max_restarts > 0:
        raise ConfigError(f"--max-restarts {given.max_restarts}: dtrain does not restart a job; resume from its last checkpoint instead")
    if given.node_rank:
        raise ConfigError(
            f"--node-rank {given.node_rank}: one `dtrain run` starts all nodes; run it once, with --hosts, --hostfile or inside Slurm"
        )
    if given.rdzv_backend not in (None, "static", "c10d"):
        raise ConfigError(f"--rdzv-backend {given.rdzv_backend!r}: expected static or c10d; ranks meet at MASTER_ADDR:MASTER_PORT")
    if given.hosts and given.hostfile:
        raise ConfigError("--hosts and --hostfile were both given; give one")
    if given.standalone and (given.hosts or given.hostfile or _nnodes(given) not in (None, 1)):
        raise ConfigError("--standalone means this host alone, but more nodes were named")
    if given.standalone and (given.rdzv_endpoint or given.master_addr or given.master_port):
        raise ConfigError("--standalone picks a free port on this host; drop it, or the address")
    if not given.log_dir and (given.tee != Streams() or given.redirects != Streams()):
        raise ConfigError("--tee and --redirects write files: say where with --log-dir DIR")


def _check_target(given: argparse.Namespace) -> None:
    target = given.script
    if not target:
        raise ConfigError("no script given; usage: dtrain run [-n N] script.py [arguments]")
    if given.module and given.no_python:
        raise ConfigError("--module and --no-python exclude each other")
    if given.module or given.no_python or os.path.exists(target):
        return
    near = _nearest(os.path.basename(target), _listing(os.path.dirname(target) or "."))
    hint = f"; did you mean {os.path.join(os.path.dirname(target), near)!r}?" if near else f" (looked in {os.getcwd()})"
    raise ConfigError(f"script {target!r} not found{hint}")


def _unknown(flag: str, parser: argparse.ArgumentParser) -> str:
    name = flag.partition("=")[0]
    near = _nearest(name.replace("_", "-"), [n for action in parser._actions for n in action.option_strings if "_" not in n])
    return f"unknown flag {name!r}" + (f"; did you mean {near!r}?" if near else "; see dtrain run --help")


def _nearest(word: str, words: list[str]) -> str | None:
    from difflib import get_close_matches  # only on the way to an error

    return next(iter(get_close_matches(word, words, n=1, cutoff=0.6)), None)


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


# --------------------------------------------------------------------------------------------------- where and how many


def _hosts(given: argparse.Namespace, site: Site) -> list[tuple[str, int | None]]:
    if given.standalone or given.backend == "local":
        return hosting.parse_hosts(given.hosts) if given.hosts else []
    if given.hosts:
        return hosting.parse_hosts(given.hosts)
    if given.hostfile:
        try:
            with open(given.hostfile) as file:
                return hosting.parse_hostfile(file.read(), given.hostfile)
        except OSError as error:
            raise ConfigError(f"--hostfile {given.hostfile!r} cannot be read: {error.strerror}") from None
    return hosting.slurm_allocation(site.environ)


def _nnodes(given: argparse.Namespace) -> int | None:
    if given.nnodes is None:
        return None
    low, colon, high = given.nnodes.partition(":")
    if colon and low != high:
        raise ConfigError(f"--nnodes {given.nnodes}: a changing number of nodes is not built; give one number")
    if not low.isdigit() or int(low) < 1:
        raise ConfigError(f"--nnodes must be a number of at least 1, got {given.nnodes!r}")
    return int(low)


def _resolve_per_node(per_node: int | str | None, site: Site) -> int | None:
    if per_node == "gpu" and site.gpus == 0:
        raise ConfigError("--nproc-per-node gpu, but this host shows no GPU; give a number, or cpu")
    return {"cpu": site.cores, "gpu": site.gpus, "auto": site.gpus or site.cores}.get(per_node, per_node)  # type: ignore[arg-type]


def _meeting_point(given: argparse.Namespace) -> tuple[str | None, int | None]:
    if not given.rdzv_endpoint:
        return given.master_addr, given.master_port
    if given.master_addr or given.master_port:
        raise ConfigError("--rdzv-endpoint and --master-addr/--master-port say the same thing; give one")
    host, colon, port = given.rdzv_endpoint.rpartition(":")
    if not colon:
        return given.rdzv_endpoint, None
    number = _checked(port, "--rdzv-endpoint's port", 0, 65535)
    return host, number or None  # port 0 asks for a free one


# ------------------------------------------------------------------------------------------------------- types of flags


def _checked(text: str, what: str, low: int, high: int | None = None) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ConfigError(f"{what} must be a whole number, got {text!r}") from None
    if value < low or (high is not None and value > high):
        raise ConfigError(f"{what} must be at least {low}" + (f" and at most {high}" if high else "") + f", got {value}")
    return value


def _typed(low: int, high: int | None = None):
    def convert(text: str) -> int:
        try:
            return _checked(text, "it", low, high)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("it ")) from None

    return convert


_natural, _positive, _port = _typed(0), _typed(1), _typed(0, 65535)


def _per_node(text: str) -> int | str:
    return text if text in ("cpu", "gpu", "auto") else _positive(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text!r}")
    return value


def _ranks(text: str) -> frozenset[int]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"must be local ranks such as 0,1, got {text!r}")
    return frozenset(int(part) for part in text.split(","))


def _streams(text: str) -> Streams:
    if text in ("0", "1", "2", "3"):
        return Streams(int(text))
    pairs = [part.partition(":")[::2] for part in text.split(",")]
    if not all(rank.isdigit() and value in ("0", "1", "2", "3") for rank, value in pairs):
        raise argparse.ArgumentTypeError(f"must be 0, 1, 2 or 3, or pairs such as 0:3,1:2, got {text!r}")
    return Streams(0, tuple((int(rank), int(value)) for rank, value in pairs))
