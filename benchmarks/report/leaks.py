"""What a report says first where runs were made on splits that leak."""

from benchmarks.auditing import leaks_of
from benchmarks.record import RunRecord
from benchmarks.report.rows import Report


def leaks_told(report: Report) -> tuple[str, str]:
    """A sentence to be read first and what was found, as text; both empty where nothing leaks."""
    leaking = {str(record.data["audit"]["leaks"][0]): record.data["audit"] for record in report.records if _leaks(record)}
    count = sum(_leaks(record) for record in report.records)
    if not count:
        return "", ""
    found = "; ".join(f"{leaks_of(audit)}, the first is {first}" for first, audit in sorted(leaking.items()))
    return (
        f"LEAK: {count} of {len(report.records)} runs were made with --allow-leaks on splits that leak; their scores prove nothing.",
        found,
    )


def leak_warning(report: Report) -> str:
    """The same as a paragraph of Markdown; empty where nothing leaks."""
    loud, found = leaks_told(report)
    return f"**{loud}** {found.replace('<', '&lt;')}\n" if loud else ""  # names of scenes are data


def _leaks(record: RunRecord) -> bool:
    return not (record.data.get("audit") or {"passed": True})["passed"]
