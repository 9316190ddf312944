"""A notebook-first MLOps workbench: one notebook from the first look at the data to the alert in production."""

__version__ = "0.1.0"
