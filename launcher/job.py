"""The process shell: start the ranks, watch until they end, stop what must be stopped, say why, sweep.

States: running; stopping (ranks were told to end: because one failed, or a signal came), until ``kill_at``; then killing. The job is over
when the processes started here have ended and their connections are read to the end.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import replace

from dtrain.errors import LaunchError
from dtrain.launcher import failures, output, plan, sweep, wire
from dtrain.launcher.failures import Failure
from dtrain.launcher.links import Link, address_towards, free_port, write_error_file
from dtrain.launcher.mpi import Mpi, settings_of_site
from dtrain.launcher.spec import LaunchSpec, Site

FAILED_GRACE = 0.7  # seconds the other ranks get after SIGTERM when one has failed
TEARDOWN = 0.3  # seconds mpirun gets to end by itself after a failed job's ranks have ended
TEARDOWN_WELL = 5.0  # ... and after a good job's, where remote daemons may have much to say
DRAIN = 1.0  # seconds to read on after the last process ended
NOISE_DELAY = 0.5  # mpirun's own words wait this long: after a failure they say less than we do
SHOWN = 4  # ranks that failed besides the first and are named
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON = (signal.SIGUSR1, signal.SIGUSR2)
_MPIRUN_SAYS = re.compile(r"process rank (\d+) with PID \d+ on node \S+ exited on\s+signal (\d+)")


class Job:
    """One run of a LaunchSpec. ``run`` returns the exit code."""

    def __init__(self, spec: LaunchSpec, site: Site, mpi: Mpi | None) -> None:
        self.spec, self.site, self.mpi = spec, site, mpi
        self.screens = output.screens()
        self.selector = selectors.DefaultSelector()
        self.links: list[Link] = []
        self.processes: list[subprocess.Popen] = []
        self.failures: list[Failure] = []
        self.noise: list[tuple[float, bytes]] = []
        self.began, self.began_at = time.monotonic(), time.time()
        self.stop_at = self.kill_at = self.gone_at = self.let_go_at = float("inf")
        self.stopping = False
        self.stopped_by = 0
        self.server = None
        self.old_wakeup = -1
        self.work = os.path.join(_base(), f"dtrain-{spec.run_id[-40:]}")

    def run(self) -> int:
        self._make_folders()
        sweep.adopt_orphans()
        before = {number: signal.getsignal(number) for number in (*_STOPS, *_PASSED_ON, signal.SIGCHLD)}
        try:
            self._listen()
            self._start()
            while not self._over():
                for ready, _ in self.selector.select(self._patience()):
                    ready.data()
                self._act()
        except BrokenPipeError:  # whoever read our output went away, as in `dtrain run ... | head`
            self.stopped_by = signal.SIGPIPE
        finally:
            self._clean()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._conclude()

    # ------------------------------------------------------------------------------------------------------- starting

    def _make_folders(self) -> None:
        os.mkdir(self.work, 0o700)
        try:
            if self.spec.log_dir:
                os.makedirs(os.path.join(self.spec.log_dir, self.spec.run_id))
        except OSError as error:
            sweep.remove_folder(self.work)
            raise LaunchError(f"--log-dir {self.spec.log_dir!r} cannot be written: {error.strerror}") from None

    def _listen(self) -> None:
        spec = self.spec
        self.key = "" if spec.local else os.urandom(32).hex()
        if spec.local:
            self.server, self.channel = wire.listen(os.path.join(self.work, "s"), None)
        else:
            other = next(host.name for host in reversed(spec.hosts))
            try:
                self.server, self.channel = wire.listen(None, address_towards(other))
            except OSError as error:
                raise LaunchError(f"the host {other!r} cannot be reached from here: {error.strerror or error}") from None
        self.selector.register(self.server, selectors.EVENT_READ, self._accept)
        self.wake, writer = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(writer, False)
        self.old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*_STOPS, *_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self.selector.register(self.wake, selectors.EVENT_READ, self._on_signal)

    def _start(self) -> None:
        spec, site = self.spec, self.site
        variables = plan.job_variables(spec, site, self.channel, self.key, free_port() if spec.local else None)
        self.inherit = spec.size == 1 and spec.backend == "local" and not spec.log_dir and spec.to_screen(0) == 3
        variables |= {"DTRAIN_STREAMS": "inherit"} if self.inherit else self._terminal()
        settings = settings_of_site(self.mpi, site.environ) if self.mpi else ""
        environ = plan.job_environment(spec, site, variables, self.mpi, settings)
        if self.mpi:
            commands = [(plan.mpi_command(spec, site, self.mpi, environ, self.work), environ)]
        else:
            commands = [(plan.rank_command(spec, site), environ | plan.local_variables(spec, rank)) for rank in range(spec.size)]
        reader, writer = os.pipe()
        for command, env in commands:
            streams = {} if self.inherit else {"stdin": subprocess.DEVNULL, "stdout": writer, "stderr": writer}
            try:
                self.processes.append(subprocess.Popen(command, env=env, start_new_session=True, **streams))
            except OSError as error:
                raise LaunchError(f"cannot start {command[0]!r}: {error.strerror}") from None
        os.close(writer)
        self.noise_fd = reader
        self.selector.register(reader, selectors.EVENT_READ, self._on_noise)

    def _terminal(self) -> dict[str, str]:
        """Tell rank 0 which of its streams end on a terminal, so that its progress bar shows, and how wide that is."""
        shown = self.spec.to_screen(0)
        mask = sum(bit for bit, fd in ((1, 1), (2, 2)) if shown & bit and os.isatty(fd))
        if not mask:
            return {}
        size = os.get_terminal_size(1 if mask & 1 else 2)
        return {"DTRAIN_TTY": f"{mask};{size.lines or 24};{size.columns or 80}"}  # some terminals do not know their size

    # ------------------------------------------------------------------------------------------------------- watching

    def _accept(self) -> None:
        sock, _ = self.server.accept()
        link = Link(sock, self.key)
        self.links.append(link)
        self.selector.register(sock, selectors.EVENT_READ, lambda: self._on_link(link, sock))
        if self.stopping:  # it was late to a job that is ending
            link.send(wire.SIGNAL, bytes([signal.SIGTERM]))

    def _on_link(self, link: Link, sock) -> None:
        descriptor = sock.fileno()
        found = link.receive(self.spec, self.screens)
        if link.closed:
            self.selector.unregister(descriptor)
        # Ends that come while the job is being stopped are our doing, unless a rank raised by itself.
        self.failures += [failure for failure in found if not self.stopping or failure.kind == "raised"]

    def _on_noise(self) -> None:
        data = os.read(self.noise_fd, 1 << 16)
        if data:
            self.noise.append((time.monotonic(), data))
        else:
            self.selector.unregister(self.noise_fd)

    def _on_signal(self) -> None:
        for number in os.read(self.wake, 256):
            if number in _PASSED_ON:
                self._tell(number)
            elif number in _STOPS and (self.stopped_by or number == signal.SIGQUIT):
                self.stopped_by = self.stopped_by or number
                self.stopping, self.kill_at = True, 0.0  # asked twice: at once
            elif number in _STOPS:
                self.stopped_by = number
                self._stop(number, self.spec.grace)

    def _patience(self) -> float | None:
        waiting = min(self.stop_at, self.kill_at, self.gone_at, self.let_go_at) < float("inf")
        held = any(source.held and source.live for link in self.links for source in link.sources)
        return 0.02 if waiting else 0.2 if held or self.noise else None

    def _act(self) -> None:
        now = time.monotonic()
        for process in self.processes:
            process.poll()
        if all(process.returncode is not None for process in self.processes):
            self.gone_at = min(self.gone_at, now)
        if self.failures and not self.stopping:
            cause = failures.root_cause(self.failures)
            self.stop_at = min(self.stop_at, now + (failures.SETTLE_ECHO if cause.is_echo else failures.SETTLE))
        if now >= self.stop_at and not self.stopping:
            self._stop(signal.SIGTERM, FAILED_GRACE)
        if self._all_ranks_done() and self.let_go_at == float("inf"):
            self.let_go_at = now
            self._broadcast(wire.LEAVE)
        teardown = TEARDOWN if self.failures or self.stopping else TEARDOWN_WELL
        if now >= min(self.kill_at, self.let_go_at + teardown):
            self._kill()
        for link in self.links:
            for source in link.sources:
                source.flush(idle=0.2)
        if not self.failures and not self.stopping and self.noise and now - self.noise[0][0] > NOISE_DELAY:
            self._print_noise()

    def _all_ranks_done(self) -> bool:
        return len({link.rank for link in self.links if link.done and link.rank is not None}) == self.spec.size

    def _ended_well(self) -> bool:
        known = [link.status for link in self.links if link.rank is not None]
        return self._all_ranks_done() and all(status and status["code"] == status["signal"] == 0 for status in known)

    def _over(self) -> bool:
        if self.gone_at == float("inf"):
            return False
        return all(link.closed for link in self.links) or time.monotonic() > self.gone_at + DRAIN

    # -------------------------------------------------------------------------------------------------------- stopping

    def _stop(self, number: int, grace: float) -> None:
        self.stopping = True
        self.stop_at, self.kill_at = float("inf"), time.monotonic() + grace
        self._tell(number)
        if not self.links:  # nobody is there to be told yet
            self.kill_at = 0.0

    def _tell(self, number: int) -> None:
        self._broadcast(wire.SIGNAL, bytes([number]))

    def _broadcast(self, kind: int, payload: bytes = b"") -> None:
        for link in self.links:
            if not link.closed:
                link.send(kind, payload)

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)  # each leads a session of its own
                except OSError:
                    pass
        sweep.end_processes(self.spec.run_id)

    def _clean(self) -> None:
        self._kill()
        for process in self.processes:
            process.wait()
        sweep.reap()
        signal.set_wakeup_fd(self.old_wakeup)
        for link in self.links:
            if not link.closed:
                link.sock.close()
                link.finish_output()
        if self.server is not None:
            self.server.close()
        self.selector.close()
        sweep.remove_folder(self.work)
        if self.failures or self.stopping or not self._ended_well():
            sweep.remove_segments(self.began_at)

    # ------------------------------------------------------------------------------------------------------- concluding

    def _conclude(self) -> int:
        if self.stopped_by == signal.SIGPIPE:
            return 128 + signal.SIGPIPE
        for screen in self.screens:
            screen.close()
        cause = failures.root_cause(map(self._named, self.failures))
        if self.stopped_by:
            return self._conclude_stopped(cause)
        if cause is not None:
            return self._conclude_failed(cause)
        # What mpirun says of itself counts only where it did not see the end of ranks that all ended well.
        codes = [] if self._ended_well() else [process.returncode for process in self.processes if process.returncode]
        self._print_noise()
        if codes:
            code = codes[0] if codes[0] > 0 else 128 - codes[0]
            what = "mpirun" if self.mpi else "a rank's parent"
            how = f"exited with code {code}" if codes[0] > 0 else f"was killed by signal {-codes[0]} ({failures.signal_name(-codes[0])})"
            self._say(f"{what} {how}; no rank reported a failure of its own")
            return code
        return 0

    def _conclude_stopped(self, cause: Failure | None) -> int:
        name = signal.Signals(self.stopped_by).name
        ended_well = self._ended_well()
        if cause is not None and cause.type != "KeyboardInterrupt":
            self._say(f"while stopping, {failures.describe(cause)}")
        self._say(f"stopped by {name}; all {self.spec.size} ranks have ended" + (" well" if ended_well else ""))
        return 0 if ended_well else 128 + self.stopped_by

    def _conclude_failed(self, cause: Failure) -> int:
        # One that vanished besides was most likely ended by mpirun, which saw the first one go.
        others = [failure for failure in self.failures if failure.rank != cause.rank and failure.kind != "lost"]
        others.sort(key=lambda failure: failure.time)
        for failure in (cause, *others) if self.spec.log_dir else ():
            try:
                write_error_file(self.spec, failure)
            except OSError as error:
                self._say(f"the failure of rank {failure.rank} could not be written to the log folder: {error.strerror}")
        for failure in others[:SHOWN]:
            self._say(f"besides, {failures.describe(failure)}")
        if len(others) > SHOWN:
            self._say(f"besides, {len(others) - SHOWN} more ranks")
        if cause.traceback:
            self._write(cause.traceback)
        seconds = time.monotonic() - self.began
        self._say(f"{failures.describe(cause)}; the job ended after {seconds:.1f} s with exit code {cause.exit_code}")
        return cause.exit_code

    def _named(self, failure: Failure) -> Failure:
        """A rank that was lost with its parent: by what signal, where the parent's own parent saw it."""
        if failure.kind != "lost":
            return failure
        if self.spec.local:  # nothing else ends that parent without a word
            return replace(failure, kind="killed", signal=int(signal.SIGKILL))
        said = dict(_MPIRUN_SAYS.findall(b"".join(data for _, data in self.noise).decode(errors="replace")))
        number = int(said.get(str(failure.rank), 0))
        return replace(failure, kind="killed", signal=number) if number else failure

    def _print_noise(self) -> None:
        text = b"".join(data for _, data in self.noise).decode(errors="replace")
        self.noise = []
        for line in text.splitlines():
            if line.strip():
                self._write(f"[{'mpirun' if self.mpi else 'dtrain'}] {line}\n")

    def _say(self, text: str) -> None:
        self._write(f"[dtrain] {text}\n")

    def _write(self, text: str) -> None:
        self.screens[1].close()
        sys.stderr.write(text)
        sys.stderr.flush()


def _base() -> str:
    """Where the job's folder goes. Open MPI maps files in it, so memory is the place; and socket paths are short."""
    return next(path for path in ("/dev/shm", os.environ.get("TMPDIR", "")[:40], "/tmp") if path and os.access(path, os.W_OK))
