"""`python -m mlops_nb` is the command `mlops-nb`."""

from mlops_nb.cli import main

main()
