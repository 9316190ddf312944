"""A model answers: the process of one instance behind an endpoint, and what batch jobs and packages share with it."""
