"""Torture: a system of real processes under load and faults, and a checker that decides whether the promises held.

`python -m tests.torture --engine gears2 --minutes 2 --seed 1`, or `make torture`.
"""
