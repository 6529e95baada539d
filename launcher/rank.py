"""What mpirun starts for each rank: a small parent that watches, and its child, which runs the script.

How does a launcher learn that a rank was killed by signal 9, on any host, at once? Only a process's parent is told how it ended;
mpirun is that parent, and it tells late, in prose, and only of the first. So each rank gets a parent of its own: this file forks,
the child becomes the script (no second interpreter start: fork takes about a millisecond), and the parent sleeps in ``poll``
until there is output to pass on, a signal to forward, or a death to report. The alternatives were polling /proc (this host
only, and no exit status) and reading mpirun's messages (vendor by vendor). The bonds hold in every direction: the
kernel kills the child if the parent dies, and the parent ends the child if the launcher's connection closes.

Run by path, not with ``-m``: the first entry of sys.path is then this folder, which is replaced before anything is imported, so that
no ``json.py`` in the user's working directory can stand before the standard library's.
"""

import os
import sys

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main(argv: list[str]) -> None:
    from dtrain.env import resolve, usable_cores
    from dtrain.launcher import supervise
    from dtrain.launcher.plan import STALE, thread_variables

    environ = dict(os.environ)
    if environ.get("DTRAIN_LAUNCH") == "mpi":  # mpirun says who I am, whatever an outer launcher's variables claim
        environ = {name: value for name, value in environ.items() if name not in STALE or name.startswith("DTRAIN_")}
    world = resolve(environ)
    environ |= world.variables()
    environ |= thread_variables(environ, usable_cores(), world.local_size)
    supervise.start(world, environ, *argv[1:3], argv[3:])


if __name__ == "__main__":
    # `dtrain` is found where this file is, also in a checkout that is not installed; the script's own folder comes in later.
    sys.path[0] = _PACKAGE_ROOT
    main(sys.argv)
