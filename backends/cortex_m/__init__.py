"""Microcontrollers with a Cortex-M."""
