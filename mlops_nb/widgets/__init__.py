"""Steps for people: what a notebook shows where somebody has to decide, or wants to watch."""

from mlops_nb.widgets.approval import ApprovalCard
from mlops_nb.widgets.label import LabelCard
from mlops_nb.widgets.monitor import MonitorCard
from mlops_nb.widgets.run import RunView, watch
from mlops_nb.widgets.traffic import TrafficCard

__all__ = ["ApprovalCard", "LabelCard", "MonitorCard", "RunView", "TrafficCard", "watch"]
