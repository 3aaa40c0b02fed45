"""``check-repo``: what the server would refuse in a repository, and what it would serve worse than it could."""

from builder.check.found import Found
from builder.check.judging import Judgement, all_rules, check_repositories

__all__ = ["Found", "Judgement", "all_rules", "check_repositories"]
