"""Published constants, and an audit of them: every one is recomputed, and judged by its digits and by its cost."""

from .audit import AuditRow, Verdict, audit
from .registry import Entry, entries, mentions

__all__ = ["AuditRow", "Entry", "Verdict", "audit", "entries", "mentions"]
