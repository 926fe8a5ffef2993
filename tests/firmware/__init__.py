"""Tests of the runner's C core and its build."""
