"""From a LaunchSpec to commands and environments: pure functions of plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dtrain.env import port_for
from dtrain.launcher.mpi import INTEL, MPICH, OPEN_MPI, Mpi
from dtrain.launcher.spec import LaunchSpec, Site

RANK_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rank.py")
# What another launcher above this one may have left in the environment: it would speak before mpirun's own variables.
STALE = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS", "DTRAIN_CHANNEL",
    "DTRAIN_CHANNEL_KEY", "DTRAIN_TTY", "DTRAIN_STREAMS", "DTRAIN_RANKS_PER_NODE", "DTRAIN_THREADS_PER_RANK",
)  # fmt: skip
# A process manager's variables: ranks of the local backend must not take themselves for ranks of an mpirun above.
_OTHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "HYDI_", "HYDRA_", "MPI_LOCAL")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DTRAIN_NUM_THREADS")
# Carried to other hosts by name, beside what dtrain sets itself: mpirun of Open MPI carries nothing unasked.
_CARRIED = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", *THREADS)
_CARRIED_HEADS = ("DTRAIN_", "PYTHON", "CUDA_", "NCCL_", "OMP_", "MKL_", "OPENBLAS_", "UCX_", "FI_", "TORCHELASTIC_", "MASTER_")


def job_variables(spec: LaunchSpec, site: Site, channel: str, key: str, port: int | None) -> dict[str, str]:
    """Variables that all ranks of the job share. ``port`` is a port known to be free here, or None."""
    environ = site.environ
    address = spec.master_addr or (not spec.local and environ.get("MASTER_ADDR")) or ("127.0.0.1" if spec.local else spec.hosts[0].name)
    given = spec.master_port or environ.get("MASTER_PORT")
    variables = {
        "DTRAIN_RUN_ID": spec.run_id,
        "DTRAIN_LAUNCH": spec.backend,
        "DTRAIN_CHANNEL": channel,
        "DTRAIN_RANKS_PER_NODE": ",".join(map(str, spec.ranks_per_node)),
        "MASTER_ADDR": str(address),
        "MASTER_PORT": str(given or port or port_for(spec.run_id)),
        "TORCHELASTIC_RUN_ID": spec.run_id,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
    }
    if key:
        variables["DTRAIN_CHANNEL_KEY"] = key
    if spec.threads is not None:
        variables["DTRAIN_THREADS_PER_RANK"] = str(spec.threads)
    return variables


def job_environment(spec: LaunchSpec, site: Site, variables: Mapping[str, str], mpi: Mpi | None, settings: str = "") -> dict[str, str]:
    """The whole environment of mpirun, or of each rank of the local backend before its own place is added."""
    environ = {name: value for name, value in site.environ.items() if name not in STALE}
    if mpi is None:
        environ = {name: value for name, value in environ.items() if not name.startswith(_OTHERS)}
    elif mpi.vendor == OPEN_MPI:
        environ |= _open_mpi_settings(spec, site, mpi, settings)
    elif mpi.vendor == INTEL:
        environ.setdefault("I_MPI_PIN", "off")
    return environ | dict(variables)


def local_variables(spec: LaunchSpec, rank: int) -> dict[str, str]:
    """A rank's own place, for the local backend."""
    return {"RANK": str(rank), "WORLD_SIZE": str(spec.size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(spec.size)}


def _open_mpi_settings(spec: LaunchSpec, site: Site, mpi: Mpi, settings: str) -> dict[str, str]:
    """Open MPI's transports chosen for it, which cuts the start from above a second to a fraction; never over anyone's own choice."""
    chosen = {}
    touched = [name for name in ("pml", "btl", "mtl") if f"OMPI_MCA_{name}" in site.environ or _sets(settings, name)]
    if not touched and (spec.local or not site.fabric):
        shared_memory = "vader" if mpi.version is not None and mpi.version < 5 else "sm"
        chosen = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": f"self,{shared_memory},tcp"}
    # A signal to the whole job (scancel) leaves ranks the same grace as one to the launcher.
    wait = "PRTE_MCA_odls_base_sigkill_timeout"
    return chosen if wait in site.environ else chosen | {wait: str(max(1, round(spec.grace)))}


def _sets(settings: str, name: str) -> bool:
    lines = (line.partition("#")[0].partition("=")[0].strip() for line in settings.splitlines())
    return any(line == name for line in lines)


def mpi_command(spec: LaunchSpec, site: Site, mpi: Mpi, environ: Mapping[str, str], work: str | None = None) -> list[str]:
    """The mpirun command line. ``environ`` is the job's environment, ``work`` a folder for mpirun's own files."""
    options = _open_mpi_options if mpi.vendor == OPEN_MPI else _hydra_options
    return [mpi.path, "-n", str(spec.size), *options(spec, site, mpi, environ, work), *rank_command(spec, site)]


def rank_command(spec: LaunchSpec, site: Site) -> list[str]:
    """What every rank runs: by path and not with -m, so that no module of the user's can stand before the standard library's."""
    return [site.executable, RANK_FILE, spec.kind, spec.target, *spec.args]


def _open_mpi_options(spec: LaunchSpec, site: Site, mpi: Mpi, environ: Mapping[str, str], work: str | None) -> list[str]:
    options = ["--stdin", "none"]
    if site.root:
        options.append("--allow-run-as-root")
    if "PRTE_MCA_hwloc_default_binding_policy" not in environ and "OMPI_MCA_hwloc_base_binding_policy" not in environ:
        options += ["--bind-to", "none"]
    if spec.local:
        options.append("--oversubscribe")
        if work and (mpi.version or 0) >= 5:  # mpirun and its ranks keep their files where the launcher removes them, come what may
            options += ["--prtemca", "prte_tmpdir_base", work]
            options += [] if "OMPI_MCA_btl_sm_backing_directory" in environ else ["--mca", "btl_sm_backing_directory", work]
        if "SLURM_JOB_ID" in environ:  # this host alone: not spread over the allocation, nor held to its slots
            flag = "--mca" if mpi.version == 4 else "--prtemca"
            options += [flag, "ras", "^slurm", flag, "plm", "^slurm"]
        return options
    options += ["--host", ",".join(f"{host.name}:{host.ranks}" for host in spec.hosts)]
    for name in carried(environ):
        options += ["-x", name]  # by name: a value on the command line would be read by anyone with ps
    return options


def _hydra_options(spec: LaunchSpec, site: Site, mpi: Mpi, environ: Mapping[str, str], work: str | None) -> list[str]:
    # MPICH's own cleanup kills every rank's parent in the instant a rank dies, before any can say what happened.
    options = ["-disable-auto-cleanup"] if mpi.vendor == MPICH else []
    if spec.local:
        return options + (["-launcher", "fork"] if "SLURM_JOB_ID" in environ else [])
    return options + ["-hosts", ",".join(f"{host.name}:{host.ranks}" for host in spec.hosts)]


def carried(environ: Mapping[str, str]) -> list[str]:
    """Names of the variables that ranks on other hosts get from here."""
    return sorted(name for name in environ if name in _CARRIED or name.startswith(_CARRIED_HEADS))


def thread_variables(environ: Mapping[str, str], cores: int, local_size: int) -> dict[str, str]:
    """Threads for each rank: its share of the host's cores, unless the user has said otherwise.

    One flag (``DTRAIN_THREADS_PER_RANK``) sets all pools; a pool's own variable is never overwritten without it, and
    ``OMP_NUM_THREADS``, which most pools obey, speaks for those that are not set.
    """
    explicit = environ.get("DTRAIN_THREADS_PER_RANK")
    if explicit:
        return dict.fromkeys(THREADS, explicit)
    general = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    count = general if general.isdigit() and int(general) else str(max(1, cores // local_size))
    return {name: count for name in THREADS if name not in environ}


def describe(spec: LaunchSpec, mpi: Mpi | None) -> str:
    """The one line that says what is about to start."""
    import shlex

    places = ", ".join(f"{host.ranks} on {host.name}" for host in spec.hosts[:4]) + (", ..." if len(spec.hosts) > 4 else "")
    ranks = "1 rank" if spec.size == 1 else f"{spec.size} ranks"
    through = f"{mpi.vendor} ({mpi.path}, {mpi.how})" if mpi else "the local backend"
    return f"{ranks} ({places}) through {through}: {shlex.join([spec.target, *spec.args])[:200]}"
