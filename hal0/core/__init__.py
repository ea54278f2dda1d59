"""Decisions, pure and synchronous: functions of values, with time as an argument."""
