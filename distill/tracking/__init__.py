"""Telling TensorBoard, Weights & Biases or MLflow what a run does, without ever standing in its way."""

from distill.tracking.tracked import TRACKERS, Tracking, check_trackers, known_trackers, tracking

__all__ = ["TRACKERS", "Tracking", "check_trackers", "known_trackers", "tracking"]
