"""Checks that this machine can compile and train, and that a board can be reached and trains: each gives a result."""

from edgekit.doctor.board import board_checks
from edgekit.doctor.check import Check, Finding, NotNow, Outcome, examine
from edgekit.doctor.machine import CHECKS

__all__ = ["CHECKS", "Check", "Finding", "NotNow", "Outcome", "board_checks", "examine"]
