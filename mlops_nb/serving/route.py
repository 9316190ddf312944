"""Decide which process answers a request: exact shares between deployments, the least busy instance within one.

An instance works on `max_concurrent` requests at once; as many again may wait in the deployment's queue, and one more is refused.
"""

import asyncio
from collections import Counter, deque
from time import monotonic
from typing import Any

from mlops_nb.serving.pool import Pool

FORGET = 0.25  # seconds for which an instance that broke a connection is asked last


class Refused(Exception):
    """A request that the front answers by itself."""

    def __init__(self, status: int, code: str, message: str, deployment: str = ""):
        self.status, self.code, self.deployment = status, code, deployment
        super().__init__(message)


class Target:
    """One process of a deployment, as the front sees it."""

    def __init__(self, name: str, path: str, pid: int):
        self.name, self.pid = name, pid
        self.pool = Pool(path)
        self.ready = False
        self.pending = 0  # requests under way
        self.broken_at = float("-inf")  # monotonic time


class Deployment:
    """One deployment: its instances, its queue, and what was counted of its answers."""

    def __init__(self, name: str):
        self.name = name
        self.model, self.state = "", "starting"
        self.timeout, self.queue_wait = 5.0, 0.5  # seconds
        self.most = 1  # requests an instance works on at once
        self.size = 1  # instances
        self.targets: list[Target] = []
        self.queue: deque[asyncio.Future[Target | None]] = deque()  # of requests that wait; told None: choose anew
        self.times: deque[float] = deque(maxlen=1000)  # seconds, of the newest answers
        self.answers: Counter[tuple[int, str]] = Counter()  # (status, status of the model if it failed) -> requests
        self.generation = 0
        self.turn = 0  # the instance that is asked first among equals

    @property
    def ready(self) -> bool:
        """Say whether an instance can be asked."""
        return any(target.ready for target in self.targets)

    @property
    def pending(self) -> int:
        """Count the requests under way and waiting."""
        return sum(target.pending for target in self.targets) + len(self.queue)

    def update(self, told: dict[str, Any]) -> list[Target]:
        """Take over what the host says; returns the instances that left, whose requests go on."""
        if told["generation"] != self.generation:  # another deployment of the same name
            self.generation = told["generation"]
            self.answers.clear()
            self.times.clear()
        self.model, self.state = told["model"], told["state"]
        self.timeout, self.queue_wait = told["timeout_ms"] / 1000, told["max_queue_wait_ms"] / 1000
        self.most, self.size = told["max_concurrent"], max(1, len(told["instances"]))
        known = {target.name: target for target in self.targets}
        found = []
        for instance in told["instances"]:
            target = known.pop(instance["name"], None) or Target(instance["name"], instance["socket"], instance["pid"])
            target.ready = instance["ready"]
            found.append(target)
        self.targets = found
        for target in known.values():
            target.ready = False
        self.wake()
        return list(known.values())

    def take(self, now: float, avoid: Target | None = None) -> Target | None:
        """Choose the least busy instance with room, ties in turn, and count one request more on it."""
        best: Target | None = None
        least = self.most
        targets, count = self.targets, len(self.targets)
        for step in range(count):
            target = targets[(self.turn + step) % count]
            if target.ready and target.pending < least and target is not avoid and now - target.broken_at > FORGET:
                best, least, position = target, target.pending, self.turn + step
        if best is None:
            return None
        self.turn = (position + 1) % count
        best.pending += 1
        return best

    def release(self, target: Target) -> None:
        """Count one request less on an instance, and give its room to the one that waits longest."""
        target.pending -= 1
        if self.queue:
            self.wake()

    def wake(self) -> None:
        """Let those in the queue go for whom there is room now."""
        now = monotonic()
        while self.queue:
            if self.queue[0].done():
                self.queue.popleft()
                continue
            target = self.take(now)
            if target is None:
                return
            self.queue.popleft().set_result(target)

    def dismiss(self) -> None:
        """Tell all that wait to choose anew: this deployment leaves, or has no traffic any more."""
        while self.queue:
            waiting = self.queue.popleft()
            if not waiting.done():
                waiting.set_result(None)

    async def acquire(
        self,
        now: float,
        until: float,
        avoid: Target | None = None,
        waits: list[float] | None = None,  # is given the seconds in the queue; nothing where there was room at once
    ) -> Target | None:
        """Wait for room on an instance; None: choose a deployment anew. Raises `Refused` 429 or 503."""
        if not self.queue and (target := self.take(now, avoid)):
            return target
        limit = 2 * self.most * self.size
        if self.pending >= limit:
            raise Refused(429, "TooManyRequests", f"{self.name} has {self.pending} requests pending, its most is {limit}. Send it "
                          "again later, or raise max_concurrent_requests_per_instance or the instances.", self.name)
        try:
            return await self._wait(now, until)
        finally:
            if waits is not None:
                waits.append(monotonic() - now)

    async def _wait(self, since: float, until: float) -> Target | None:
        """Stand in the queue; looked at ten times a second, as an instance may come back, or nothing be left to wait for."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Target | None] = loop.create_future()
        self.queue.append(waiting)

        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            now = monotonic()
            if now < until:  # whoever finds room now is not refused because this process stood still
                self.wake()
            if not waiting.done() and (problem := self._too_late(now, since, until)):
                waiting.set_exception(problem)
            elif not waiting.done():
                timer = loop.call_later(0.1, look)

        timer = loop.call_later(min(0.1, self.queue_wait, max(0.0, until - since)), look)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and not waiting.exception() and (target := waiting.result()):
                self.release(target)
            raise
        finally:
            timer.cancel()
            waiting.cancel()
            if waiting in self.queue:
                self.queue.remove(waiting)

    def _too_late(self, now: float, since: float, until: float) -> Exception | None:
        """Say why a request need not wait any longer."""
        if not self.ready:
            if self.state == "failed":
                return Refused(503, "NotReady", f"{self.name} does not start. Read logs/{self.name}.log of the endpoint.", self.name)
            if now >= until:
                return Refused(503, "NotReady", f"No instance of {self.name} is ready. Send it again later.", self.name)
            return None
        if now >= until:
            return TimeoutError()
        if now >= since + self.queue_wait and not any(now - target.broken_at < 1 for target in self.targets):
            return Refused(429, "QueueWait", f"The request waited {self.queue_wait * 1000:.0f} ms for {self.name}, the most there is "
                           "(max_queue_wait_ms). Send it again later, or raise the instances.", self.name)
        return None


class Routes:
    """The deployments of the endpoint, and the share of the traffic that each has."""

    def __init__(self) -> None:
        self.endpoint: dict[str, Any] = {}
        self.deployments: dict[str, Deployment] = {}
        self.shares: dict[str, float] = {}
        self.leaving: list[tuple[Deployment, Target]] = []
        self.credit: dict[str, float] = {}  # of the smooth weighted round robin
        self.sequence = 0  # of the table that is followed

    def arrange(self, table: dict[str, Any]) -> None:
        """Follow a new table of the host; nothing in here waits, so no request sees half of it."""
        self.endpoint, self.sequence = table["endpoint"], table["sequence"]
        shares = {name: share for name, share in self.endpoint["traffic"].items() if share}
        before = self.deployments
        self.deployments = {name: before.get(name) or Deployment(name) for name in table["deployments"]}
        moved = [deployment for name, deployment in before.items()
                 if name not in self.deployments or self.shares.get(name) != shares.get(name)]
        if shares != self.shares:
            self.shares, self.credit = shares, dict.fromkeys(self.deployments, 0.0)
        for name, told in table["deployments"].items():
            deployment = self.deployments[name]
            self.leaving += [(deployment, target) for target in deployment.update(told)]
            self.credit.setdefault(name, 0.0)
        for name, deployment in before.items():
            if name not in self.deployments:
                for target in deployment.targets:
                    target.ready = False
                    self.leaving.append((deployment, target))
        for deployment in moved:
            deployment.dismiss()
        self.settle()

    def settle(self) -> None:
        """Forget the instances that left and have answered everything."""
        for _, target in self.leaving:
            if not target.pending:
                target.pool.close()
        self.leaving = [(deployment, target) for deployment, target in self.leaving if target.pending]

    def pick(self, pinned: str = "") -> Deployment:
        """Choose the deployment for a request: the one it names, else by exact shares; raises `Refused` 404 or 503."""
        if pinned:
            if pinned not in self.deployments:
                raise Refused(404, "NoDeployment", f"No deployment '{pinned[:64]}' (there are: {self._names()}). "
                              "Leave the header azureml-model-deployment out, or name one of them.")
            return self.deployments[pinned]
        sharing = [self.deployments[name] for name in self.shares if name in self.deployments]
        if len(sharing) == 1:
            return sharing[0]
        if not sharing:
            raise Refused(404, "NoTraffic", f"No deployment of '{self.endpoint['name']}' has traffic (there are: "
                          f"{self._names()}). Shift traffic to one, or name one in azureml-model-deployment.")
        able = [deployment for deployment in sharing if deployment.ready] or sharing
        total = 0.0
        for deployment in able:
            share = self.shares[deployment.name]
            self.credit[deployment.name] += share
            total += share
        best = max(able, key=lambda deployment: self.credit[deployment.name])
        self.credit[best.name] -= total
        return best

    def _names(self) -> str:
        return ", ".join(self.deployments) or "none"
