"""The users of a load test, in a process of their own, because Locust changes how a whole process waits."""
