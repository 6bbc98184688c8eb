"""Measurements as ratios against named rivals, in one run."""
