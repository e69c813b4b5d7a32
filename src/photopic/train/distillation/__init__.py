"""Classifiers taught by other classifiers: what a teacher knows and a student does not, without losing what the student had."""
