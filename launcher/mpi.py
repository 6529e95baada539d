"""Which mpirun starts the ranks, whose it is, and how it wants to be asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dtrain.errors import LaunchError

OPEN_MPI, MPICH, INTEL = "Open MPI", "MPICH", "Intel MPI"
REMEDY = "install one with `pip install dtrain[mpi]`, load your cluster's MPI module, or use --backend local on one host"
# Programs that only one vendor puts beside its mpirun: asking the folder costs nothing, asking mpirun a process.
_BESIDE = (("impi_info", INTEL, None), ("prterun", OPEN_MPI, 5), ("orterun", OPEN_MPI, 4), ("hydra_pmi_proxy", MPICH, None))


@dataclass(frozen=True)
class Mpi:
    """An mpirun: ``path``, ``vendor``, its major ``version`` where that changes the flags, and ``how`` it was found."""

    path: str
    vendor: str
    version: int | None = None
    how: str = ""


def find_mpi(environ: Mapping[str, str], executable: str) -> Mpi:
    """The mpirun to use. Raises LaunchError where there is none or DTRAIN_MPIRUN names none."""
    chosen = environ.get("DTRAIN_MPIRUN")
    if chosen and not os.access(chosen, os.X_OK):
        raise LaunchError(f"DTRAIN_MPIRUN={chosen!r} is not a program")
    for path, how in candidates(environ, executable):
        if os.access(path, os.X_OK) and os.path.isfile(path):
            vendor, version = recognise(path)
            return Mpi(path, vendor, version, how)
    raise LaunchError(f"no mpirun found (looked beside {executable}, beside libmpi and on PATH): {REMEDY}")


def candidates(environ: Mapping[str, str], executable: str) -> Iterator[tuple[str, str]]:
    """Where an mpirun may be, best first: it must be the one whose libmpi the ranks will load."""
    if environ.get("DTRAIN_MPIRUN"):
        yield environ["DTRAIN_MPIRUN"], "DTRAIN_MPIRUN"
    beside = os.path.dirname(os.path.abspath(executable))  # not realpath: a virtual environment's own
    yield os.path.join(beside, "mpirun"), "next to python"
    for folder in _libmpi_folders(environ):
        yield os.path.join(os.path.dirname(folder.rstrip("/")), "bin", "mpirun"), "beside libmpi"
    for folder in environ.get("PATH", "").split(":"):
        if folder:
            yield os.path.join(folder, "mpirun"), "PATH"


def _libmpi_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Folders from which mpi4py would load libmpi."""
    if "/" in environ.get("MPI4PY_LIBMPI", ""):
        yield os.path.dirname(environ["MPI4PY_LIBMPI"])
    for folder in environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder and os.path.exists(os.path.join(folder, "libmpi.so")):
            yield folder


def recognise(path: str) -> tuple[str, int | None]:
    """Vendor and major version of the mpirun at ``path``, from the files beside it or else from its --version."""
    for folder in (os.path.dirname(path), os.path.dirname(os.path.realpath(path))):
        for name, vendor, version in _BESIDE:
            # A system's /usr/bin may hold several MPIs side by side; there mpirun has to be asked.
            if os.path.exists(os.path.join(folder, name)) and folder not in ("/usr/bin", "/bin", "/usr/local/bin"):
                return vendor, version
    import subprocess  # ranks import this module too, and never ask

    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{path} --version failed ({error}); {REMEDY}") from None
    return vendor_of(told, path)


def vendor_of(text: str, path: str = "mpirun") -> tuple[str, int | None]:
    """Vendor and major version from what ``mpirun --version`` printed."""
    first = text.strip().partition("\n")[0]
    if "Open MPI" in first or "OpenRTE" in first:
        number = first.split()[-1].partition(".")[0]
        return OPEN_MPI, int(number) if number.isdigit() else None
    if "Intel" in first:
        return INTEL, None
    if "HYDRA" in text:
        return MPICH, None
    raise LaunchError(f"{path} is of no MPI that dtrain knows (it says {first!r}); point DTRAIN_MPIRUN at an Open MPI, MPICH or Intel mpirun")


def settings_of_site(mpi: Mpi, environ: Mapping[str, str]) -> str:
    """The text of Open MPI's parameter files, the user's and the site's; what they set is left alone."""
    prefix = os.path.dirname(os.path.dirname(mpi.path))
    paths = [os.path.join(prefix, "etc", "openmpi-mca-params.conf")]
    if "HOME" in environ:
        paths.append(os.path.join(environ["HOME"], ".openmpi", "mca-params.conf"))
    text = ""
    for path in paths:
        try:
            with open(path) as file:
                text += file.read() + "\n"
        except OSError:
            continue
    return text
