"""The engines: how writes are captured inside Redis, one module each, all behind `Engine`."""

from gears.engines.base import Absent, Any_, CaptureStatus, Condition, Engine, Equals, Present, Written
from gears.engines.detect import open_engine

__all__ = ["Absent", "Any_", "CaptureStatus", "Condition", "Engine", "Equals", "Present", "Written", "open_engine"]
