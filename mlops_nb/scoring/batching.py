"""Score requests with one model, one call after the other; requests that wait already share the next call.

Nothing ever waits for company: a call takes what is there, so a lone request goes at once, and under load the calls
grow by themselves. A request never suffers from its neighbours: where a shared call fails, each is scored alone.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

QUICK = 0.002  # seconds of CPU time: the longest that a call may keep /health and other requests from being read
SMALL = 256  # rows: larger calls never run on the loop
_FORGET = 0.9  # of the longest call's time, what is left after one more call


@dataclass(eq=False, slots=True)
class Job:
    """One request's rows on their way through the model."""

    inputs: Any
    rows: int
    gone: Callable[[], bool]  # tells whether nobody listens any more
    params: Any = None
    call: tuple[Any, Any, int] | None = None  # of a shared call: all inputs, all predictions, and where this job's begin
    done: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    since: float = field(default_factory=time.monotonic)
    begun: float = 0.0  # monotonic time at which its call began; 0: it waits

    @property
    def waited(self) -> float:
        """Say how many seconds it stood in the queue, behind the calls before its own."""
        return max(0.0, self.begun - self.since) if self.begun else 0.0


class Batcher:
    """Calls a model for the jobs that wait.

    A hop to a thread and back takes 0.1 ms, as long as a small model; on the loop, a slow model would keep /health from
    answering. So calls run on the loop as long as they are known to be quick, and in a thread otherwise; the longest of
    the last calls decides, so one slow call is enough to leave the loop, and some dozens of quick ones to come back. It is
    the CPU time that counts: on a busy machine every call takes long, and a hop longer.
    """

    def __init__(
        self,
        predict: Callable[..., Any],  # the model
        most: int,  # jobs in one call
        quick: bool,  # False: never on the loop, as for code of others, which may wait, or run a loop of its own
    ):
        self.predict, self.most, self.quick = predict, most, quick
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")  # models are not all safe to call twice at once
        self.waiting: deque[Job] = deque()
        self.running = False
        self.pace = QUICK * 10  # seconds; the first calls show how quick it is

    async def score(self, job: Job) -> Any:
        """Return the model's predictions for a job; raises what the model raises, `asyncio.CancelledError` for a job gone."""
        self.waiting.append(job)
        if not self.running:
            self.running = True
            asyncio.get_running_loop().call_soon(self._gather)
        return await job.done

    def close(self) -> None:
        """Start no more calls; one under way is nobody's any more."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _gather(self) -> None:
        """Let the loop come round once more: requests that are on this side of the wire by now are read, and share the call."""
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        batch = self._take()
        if not batch:
            self.running = False
            return
        if self.quick and self.pace < QUICK and sum(job.rows for job in batch) <= SMALL:
            self._finish(batch, self._call(batch))
        else:
            loop = asyncio.get_running_loop()
            called = loop.run_in_executor(self.thread, self._call, batch)
            called.add_done_callback(lambda ended: self._finish(batch, ended.result()))

    def _take(self) -> list[Job]:
        """Take the next jobs, as many as may share a call; those that timed out while they waited are passed over."""
        batch: list[Job] = []
        now = time.monotonic()
        while self.waiting and len(batch) < self.most:
            job = self.waiting[0]
            if batch and not can_share(batch[0], job):
                break
            self.waiting.popleft()
            if now - job.since > 0.05 and job.gone():
                job.done.cancel()
            elif not job.done.done():
                job.begun = now
                batch.append(job)
        return batch

    def _finish(self, batch: list[Job], found: list[Any]) -> None:
        for job, result in zip(batch, found, strict=True):
            if job.done.done():
                continue
            if isinstance(result, BaseException):
                job.done.set_exception(result)
            else:
                job.done.set_result(result)
        if self.waiting:
            asyncio.get_running_loop().call_soon(self._next)
        else:
            self.running = False

    def _call(self, batch: list[Job]) -> list[Any]:
        """Score jobs together; where that fails, or the model does not answer row by row, one by one."""
        began = time.thread_time()
        found = self._together(batch) if len(batch) > 1 else None
        if found is None:
            found = [self._alone(job) for job in batch]
        if sum(job.rows for job in batch) <= SMALL:
            self.pace = max(time.thread_time() - began, self.pace * _FORGET)
        return found

    def _together(self, batch: list[Job]) -> list[Any] | None:
        try:
            inputs = join([job.inputs for job in batch])
            predictions = self.predict(inputs)
        except (Exception, SystemExit):  # whose fault it is shows when each is scored alone
            return None
        if type(predictions).__name__ != "ndarray" or len(predictions) != sum(job.rows for job in batch):
            return None
        found, start = [], 0
        for job in batch:
            found.append(predictions[start:start + job.rows])
            job.call = (inputs, predictions, start)
            start += job.rows
        return found

    def _alone(self, job: Job) -> Any:
        try:
            return self.predict(job.inputs) if job.params is None else self.predict(job.inputs, params=job.params)
        except (Exception, SystemExit) as problem:
            # a future takes no StopIteration, and nobody's exit may end the server
            return RuntimeError(repr(problem)) if isinstance(problem, StopIteration | SystemExit) else problem


def can_share(one: Job, other: Job) -> bool:
    """Tell whether the rows of two jobs make one table, or one array, without changing either."""
    if one.rows + other.rows > SMALL * 4 or one.params is not None or other.params is not None:
        return False
    kind = type(one.inputs)
    if kind is not type(other.inputs):
        return False
    if hasattr(one.inputs, "dtypes"):
        return list(one.inputs.columns) == list(other.inputs.columns) and list(one.inputs.dtypes) == list(other.inputs.dtypes)
    return (hasattr(one.inputs, "dtype") and one.inputs.dtype == other.inputs.dtype
            and one.inputs.shape[1:] == other.inputs.shape[1:])


def join(inputs: Sequence[Any]) -> Any:
    """Put the rows of several jobs under one another."""
    import numpy as np

    if hasattr(inputs[0], "dtypes"):
        import pandas as pd

        return pd.concat(inputs, ignore_index=True)
    return np.concatenate(inputs)
