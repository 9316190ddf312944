"""The subcommands of `mlops-nb`, one module a group; `mlops_nb.cli` gathers them."""
