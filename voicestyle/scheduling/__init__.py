"""Which requests are admitted, which take the next step, and which are rendered: plain numbers, no torch, no server."""

from voicestyle.scheduling.request import Phase, Request
from voicestyle.scheduling.scheduler import Admission, Plan, Scheduler
from voicestyle.scheduling.step_budget import StepBudget

__all__ = ["Admission", "Phase", "Plan", "Request", "Scheduler", "StepBudget"]
