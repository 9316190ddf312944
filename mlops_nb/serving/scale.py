"""Decide how many instances a deployment should have, from how busy they are: up at once, down slowly."""

import math

PATIENCE = 5  # intervals in a row in which fewer would do, before there is one fewer


class Scaler:
    """Follows the utilization of one deployment: requests in flight / (max_concurrent x instances)."""

    def __init__(self, scale: dict[str, int], most: int):
        self.least, self.largest = scale.get("min_instances", 1), scale.get("max_instances", 1)
        self.interval = scale.get("polling_interval", 1)  # seconds
        self.target = scale.get("target_utilization_percentage", 70) / 100
        self.most = most  # requests an instance works on at once
        self.sum = self.samples = self.quiet = 0
        self.since: float | None = None

    def clamp(self, instances: int) -> int:
        """Keep a number within what is allowed."""
        return min(max(instances, self.least), self.largest)

    def look(
        self,
        now: float,  # seconds
        pending: int,  # requests under way and waiting
        instances: int,  # at present
    ) -> int:  # instances that there should be
        """Take one sample; at the end of an interval, decide."""
        self.since = now if self.since is None else self.since
        self.sum += pending
        self.samples += 1
        if now - self.since < self.interval:
            return self.clamp(instances)
        average = self.sum / self.samples
        self.sum = self.samples = 0
        self.since = now
        needed = self.clamp(math.ceil(average / self.most / self.target))
        if needed >= instances:
            self.quiet = 0
            return needed
        self.quiet += 1
        if self.quiet < PATIENCE:
            return self.clamp(instances)
        self.quiet = 0
        return self.clamp(instances - 1)
