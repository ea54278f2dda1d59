from __future__ import annotations

from plane_fixtures import bench, either, engine, scene

__all__ = ["bench", "either", "engine", "scene"]
