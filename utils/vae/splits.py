"""Groups of tasks and their splits, as all of ARC shares them: `arc.groups` says how."""

from __future__ import annotations

from utils.arc.groups import SPLITS, group, split_groups

__all__ = ["SPLITS", "group", "split_groups"]
