"""What a detector finds in an image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(kw_only=True, frozen=True, slots=True, eq=False)
class Detections:
    """Detections of one image, best first."""

    xyxy: np.ndarray
    """float32 [n, 4]: left, top, right, bottom in pixels of the image."""
    labels: np.ndarray
    """int64 [n]: index into the data set's class names."""
    scores: np.ndarray
    """float32 [n]: confidence in [0, 1]."""

    def rows(self) -> Iterator[tuple[list[float], int, float]]:
        """Corners, label and score of each."""
        return zip(self.xyxy.tolist(), self.labels.tolist(), self.scores.tolist(), strict=True)

    def at_least(self, score: float) -> "Detections":
        """Those of at least this confidence."""
        kept = self.scores >= score
        return Detections(xyxy=self.xyxy[kept], labels=self.labels[kept], scores=self.scores[kept])

    def record(self) -> dict[str, Any]:
        """As plain values, rounded for a file: ``{"boxes", "scores", "labels"}``."""
        return {
            "boxes": self.xyxy.astype(float).round(3).tolist(),
            "scores": self.scores.astype(float).round(5).tolist(),
            "labels": self.labels.tolist(),
        }
