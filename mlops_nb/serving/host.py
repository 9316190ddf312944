"""Hold one endpoint: its listening socket, its front, and the processes of its deployments.

Its folder is all it knows. `endpoint.json` is what is wanted, written by others; `status.json` is what is, written here. The host
never touches a request: the front can be killed and come back, and a deployment that leaves answers what it has first.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from mlops_nb.core.files import write_file
from mlops_nb.scoring.config import Wish
from mlops_nb.serving.instance import GRACE, RESTARTS, STABLE, Instance, Process, spawn
from mlops_nb.serving.scale import Scaler
from mlops_nb.serving.usage import EVERY, Usage, Who

log = logging.getLogger("host")
POLL = 0.1  # seconds between looks at the wish, the owner and the counters


class Group:
    """The instances of one deployment, as many as are wanted at the moment."""

    def __init__(self, host: "Host", name: str, wish: Wish):
        self.host, self.name = host, name
        self.generation = host.generation = host.generation + 1  # the front counts anew for another one of the same name
        self.instances: list[Instance] = []
        self.follow(wish)

    def follow(self, wish: Wish) -> None:
        """Take over a wish that leaves the processes as they are."""
        self.wish = wish
        for instance in self.instances:
            instance.wish = wish
        self.scaler = Scaler(wish.scale, wish.max_concurrent) if wish.scale else None
        self.resize(self.scaler.clamp(len(self.instances) or wish.instances) if self.scaler else wish.instances)

    def resize(self, count: int) -> None:
        """Start or end instances."""
        for number in range(len(self.instances), count):
            self.instances.append(Instance(self.host.wanted, self.name, number, self.wish, self.host.publish))
        while len(self.instances) > count:
            self.host.dismiss(self.instances.pop())

    def scale(self, pending: int) -> None:
        """Follow the load, where the deployment says so."""
        if self.scaler is None:
            return
        count = self.scaler.look(time.monotonic(), pending, len(self.instances))
        if count != len(self.instances):
            log.info("%s goes from %s to %s instances.", self.name, len(self.instances), count)
            self.resize(count)
            self.host.publish()

    @property
    def state(self) -> str:
        """Say how the deployment is: ready as soon as one instance is, failed when all are."""
        states = {instance.state for instance in self.instances}
        return "ready" if "ready" in states else "failed" if states == {"failed"} else "starting"

    def told(self) -> dict[str, Any]:
        """Say what the front has to know."""
        return {"generation": self.generation, "model": self.wish.model, "state": self.state, "timeout_ms": self.wish.timeout_ms,
                "max_concurrent": self.wish.max_concurrent, "max_queue_wait_ms": self.wish.max_queue_wait_ms,
                "instances": [{"name": one.name, "socket": one.socket, "pid": one.pid, "ready": one.state == "ready"}
                              for one in self.instances]}

    def status(self, counted: dict[str, Any], pending: dict[str, int]) -> dict[str, Any]:
        """Say how the deployment is, as `status.json` holds it."""
        wanted = self.host.wanted
        instances = [{"name": one.name, "pid": one.pid, "state": one.state, "pending": pending.get(one.name, 0),
                      "restarts": one.restarts} for one in self.instances]
        errors = [one.error for one in self.instances if one.error and one.state != "ready"]
        return {"state": self.state, "pid": self.instances[0].pid if self.instances else 0, "instances": instances,
                "error": errors[0] if errors else "", "model": self.wish.model, "traffic": wanted["traffic"].get(self.name, 0),
                "mirror": wanted.get("mirror_traffic", {}).get(self.name, 0),
                "restarts": sum(one.restarts for one in self.instances), "pending": counted.get("pending", 0),
                "requests": counted.get("requests", {}), "p50_ms": counted.get("p50_ms"), "p95_ms": counted.get("p95_ms")}


class FrontProcess:
    """The front's process, started again at once whenever it ends; it hears the table and tells its counters."""

    def __init__(self, host: "Host", listener: socket.socket):
        self.host, self.listener = host, listener
        self.pid = self.restarts = 0
        self.heard: dict[str, Any] = {"sequence": -1, "deployments": {}, "instances": {}, "refused": {}}
        self.totals: dict[str, Any] = {}
        self.process: Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.leaving = False
        self.task = asyncio.create_task(self._keep(), name="front")

    async def _keep(self) -> None:
        crashes = 0
        while not self.leaving:
            since = time.monotonic()
            try:
                await self._live()
            except OSError as problem:
                log.error("The front cannot be started: %s", problem)
            if self.leaving:
                return
            crashes = 0 if time.monotonic() - since > STABLE else crashes + 1
            self.restarts += 1
            log.error("The front ended with %s and is started again.", self.process and self.process.returncode)
            await asyncio.sleep(0 if crashes < 2 else RESTARTS[min(crashes - 2, len(RESTARTS) - 1)])

    async def _live(self) -> None:
        ours, theirs = socket.socketpair()
        number = self.listener.fileno()
        with theirs:
            command = [sys.executable, "-P", "-m", "mlops_nb.serving.front", os.getcwd(), str(number)]
            self.process = spawn(command, "logs/front.log", stdin=theirs, pass_fds=[number])
        self.pid = self.process.pid
        reader, self.writer = await asyncio.open_unix_connection(sock=ours, limit=2**24)
        self.tell(self.host.table() | {"totals": self.totals})
        try:
            while line := await reader.readline():
                self.heard = json.loads(line)
                self.totals = self.heard.get("totals", self.totals)
        except (OSError, ValueError) as problem:
            log.error("The front is not understood: %r", problem)
        finally:
            self.heard = self.heard | {"sequence": -1, "instances": {}}  # what was under way there ended with it
            self.writer.close()
            self.writer = None
            until = time.monotonic() + GRACE
            while self.process.poll() is None and time.monotonic() < until:
                await asyncio.sleep(0.01)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def tell(self, table: dict[str, Any]) -> None:
        """Send a table, where there is a front to hear it; a new one is told the newest anyway."""
        if self.writer:
            self.writer.write(json.dumps(table).encode() + b"\n")

    async def leave(self, wait: float) -> None:
        """End the front; what is under way is answered first, for so many seconds."""
        self.leaving = True
        if self.process and self.process.poll() is None:
            self.process.terminate()
            await asyncio.wait([self.task], timeout=wait)
            if self.process.poll() is None:
                self.process.kill()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class Host:
    """One endpoint: what is wanted, and all that is there."""

    def __init__(self, wanted: dict[str, Any], listener: socket.socket):
        self.wanted = wanted
        self.sequence = self.generation = 0
        self.told: dict[str, Any] = {}
        self.groups: dict[str, Group] = {}
        self.leaving: set[asyncio.Task[None]] = set()
        self.reached = -1  # newest revision that the front follows
        self.revisions: dict[int, int] = {}  # sequence of a table -> revision
        self.front: FrontProcess | None = None
        self.arrange(wanted)
        self.front = FrontProcess(self, listener)

    def arrange(self, wanted: dict[str, Any]) -> None:
        """Bring the processes and the front to what is wanted."""
        wishes = {name: Wish(**fields) for name, fields in wanted["deployments"].items()}
        self.wanted = wanted
        for name in [n for n, group in self.groups.items() if n not in wishes or _process(group.wish) != _process(wishes[n])]:
            self.groups.pop(name).resize(0)
        for name, wish in wishes.items():
            if name not in self.groups:
                self.groups[name] = Group(self, name, wish)
            elif self.groups[name].wish != wish:
                self.groups[name].follow(wish)
        self.publish()

    def table(self) -> dict[str, Any]:
        """Make what the front is told."""
        endpoint = {key: value for key, value in self.wanted.items() if key not in ("deployments", "history", "owner")}
        return {"sequence": self.sequence, "endpoint": endpoint, "deployments": {n: group.told() for n, group in self.groups.items()}}

    def publish(self) -> None:
        """Tell the front what is there now, if that is another than it was."""
        if (table := self.table()) != self.told:
            self.sequence += 1
            self.revisions[self.sequence] = self.wanted.get("revision", 0)
            self.told = table | {"sequence": self.sequence}
            if self.front:
                self.front.tell(self.told)

    def dismiss(self, instance: Instance) -> None:
        """Let an instance go once the front sends it nothing more and all its requests are answered."""
        task = asyncio.create_task(self._drain(instance))
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)

    async def _drain(self, instance: Instance) -> None:
        self.publish()  # without it
        sequence, until = self.sequence, time.monotonic() + instance.wish.timeout_ms / 1000 + 1
        while self.front and time.monotonic() < until:
            heard = self.front.heard
            if heard["sequence"] >= sequence and not heard["instances"].get(instance.name):
                break
            await asyncio.sleep(0.02)
        await instance.leave()

    def look(self) -> None:
        """Follow what the front says."""
        heard: dict[str, Any] = self.front.heard if self.front else {"sequence": -1, "deployments": {}}
        for sequence in [known for known in self.revisions if known <= heard["sequence"]]:
            self.reached = self.revisions.pop(sequence)
        for name, group in self.groups.items():
            group.scale(heard["deployments"].get(name, {}).get("pending", 0))

    def status(self) -> dict[str, Any]:
        """Say how the endpoint is, as `status.json` holds it."""
        front = self.front
        heard: dict[str, Any] = front.heard if front else {}
        deployments = heard.get("deployments", {})
        return {"name": self.wanted["name"], "revision": self.reached, "pid": os.getpid(), "port": self.wanted["port"],
                "front": {"pid": front.pid if front else 0, "restarts": front.restarts if front else 0},
                "leaving": len(self.leaving), "refused": heard.get("refused", {}), "mirror": heard.get("mirror", {}),
                "deployments": {name: group.status(deployments.get(name, {}), heard.get("instances", {}))
                                for name, group in self.groups.items()}}

    def sampled(self) -> tuple[list[Who], dict[str, int]]:
        """Say which processes there are to be measured, and how many requests each deployment answered."""
        whos = [Who(group.name, f"{group.name}-{one.number}", one.pid) for group in self.groups.values() for one in group.instances]
        whos += [Who("", "host", os.getpid()), Who("", "front", self.front.pid if self.front else 0)]
        counted = self.front.heard["deployments"] if self.front else {}
        return [who for who in whos if who.pid], {name: sum(seen["requests"].values()) for name, seen in counted.items()}

    async def stop(self) -> None:
        """End everything: no new request is let in, those under way are answered, then the processes end."""
        longest = max((group.wish.timeout_ms for group in self.groups.values()), default=0) / 1000
        if self.front:
            await self.front.leave(longest + 1)
        everybody = [one for group in self.groups.values() for one in group.instances]
        await asyncio.gather(*(one.leave() for one in everybody), *self.leaving)


def _process(wish: Wish) -> Wish:
    """Leave out what changes without a new process."""
    return replace(wish, instances=1, scale=None, probe=None, max_queue_wait_ms=0)


async def _follow(host: Host, ended: asyncio.Event) -> None:
    """Follow `endpoint.json`, and write `status.json` whenever something changed, until the end."""
    started = psutil.Process().create_time()
    seen = written = None
    while not ended.is_set() and _has_owner(host.wanted):
        try:
            found = os.stat("endpoint.json")
            if seen != (stamp := (found.st_ino, found.st_mtime_ns)):
                seen = stamp
                host.arrange(json.loads(Path("endpoint.json").read_text()))
        except FileNotFoundError:  # the endpoint was removed: there is nothing left to serve
            return
        except (ValueError, TypeError, KeyError) as problem:
            log.error("endpoint.json is not understood (%r); serving goes on as before.", problem)
        host.look()
        if (status := host.status()) != written:
            content = json.dumps(status | {"state": "running", "started": started, "at": time.time()}, indent=1)
            with contextlib.suppress(OSError):  # a full disk must not end the service
                await asyncio.to_thread(write_file, "status.json", content)
            written = status
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), POLL)


async def _measure(host: Host) -> None:
    """Note what the processes use, every few seconds, until it is cancelled; a thread waits for the disk."""
    usage = Usage(host.wanted["name"], host.wanted["environment"])
    pause = 1.0  # at first: what was just deployed is soon known
    while True:
        every = max(0.1, float(host.wanted.get("usage_seconds", EVERY)))
        await asyncio.sleep(min(pause, every))
        pause = every
        try:
            await asyncio.to_thread(usage.sample, *host.sampled())
        except Exception:  # measuring must not end the service
            log.exception("The processes are not measured.")


def _has_owner(wanted: dict[str, Any]) -> bool:
    """Say whether the process that a temporary endpoint belongs to is still there."""
    if not wanted.get("owner"):
        return True
    pid, started = wanted["owner"]
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.Error:
        return False


async def serve(listener: socket.socket) -> None:
    """Hold the endpoint whose folder this is, on a socket that listens already, until SIGTERM."""
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    host = Host(json.loads(Path("endpoint.json").read_text()), listener)
    log.info("%s listens on port %s", host.wanted["name"], listener.getsockname()[1])
    measuring = asyncio.create_task(_measure(host))
    await _follow(host, ended)
    measuring.cancel()
    status = host.status()
    listener.close()
    await host.stop()
    stopped = {name: found | {"state": "stopped", "pid": 0, "instances": []} for name, found in status["deployments"].items()}
    status |= {"state": "stopped", "pid": 0, "at": time.time(), "deployments": stopped}
    with contextlib.suppress(FileNotFoundError):  # the folder was removed
        write_file("status.json", json.dumps(status, indent=1))


def _listen() -> socket.socket:
    """Listen where `endpoint.json` says; for a host that was given no socket."""
    wanted = json.loads(Path("endpoint.json").read_text())
    listener = socket.socket(socket.AF_INET6 if ":" in wanted["host"] else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((wanted["host"], wanted["port"]))
    listener.listen(1024)
    return listener


def main() -> None:
    """Hold an endpoint: `python -m mlops_nb.serving.host [--foreground] FOLDER [number of the listening socket]`."""
    parser = argparse.ArgumentParser(prog="mlops_nb.serving.host", description=main.__doc__)
    parser.add_argument("folder")
    parser.add_argument("socket", type=int, nargs="?", help="number of a socket that listens; systemd's is 3")
    parser.add_argument("--foreground", action="store_true", help="stay, instead of becoming a daemon")
    arguments = parser.parse_args()
    if not arguments.foreground:
        if os.fork():  # the starter need not wait for us, nor take us along when it ends
            os._exit(0)
        os.setsid()
    os.chdir(arguments.folder)
    Path("logs").mkdir(exist_ok=True)
    Path("run").mkdir(mode=0o700, exist_ok=True)
    os.chmod("run", 0o700)  # nobody else may talk to the deployments
    for leftover in Path("run").glob("*.sock"):
        leftover.unlink()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    listener = _listen() if arguments.socket is None else socket.socket(fileno=arguments.socket)
    asyncio.run(serve(listener))


if __name__ == "__main__":
    main()
