"""Steps for people: what a notebook shows where somebody has to decide."""

from mlops_nb.widgets.approval import ApprovalCard

__all__ = ["ApprovalCard"]
