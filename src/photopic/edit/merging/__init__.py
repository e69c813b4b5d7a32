"""Edits of one base merged into one by rules that weigh what each wants of an entry."""

from photopic.core.edits.rules import RULES, Importance, Rule, elected, summed
from photopic.edit.merging._common import merged

__all__ = ["RULES", "Importance", "Rule", "elected", "merged", "summed"]
