"""Tables of measured numbers below the test results.

    def test_parity(report_table):
        report_table("Parity with transformers", [{"case": "tied", "logits": 3e-7}])

prints the row at the end of the run, in one table with the rows that other tests gave under the same title.
"""

from collections import defaultdict

import pytest


@pytest.fixture
def report_table(record_property):
    """A function (title, rows) that prints the rows, dicts from column to value, when all tests are done."""

    def report(title: str, rows: list[dict]) -> None:
        cells = [{str(column): as_text(value) for column, value in row.items()} for row in rows]
        record_property("report_table", [title, cells])  # strings only: xdist carries it to the main process

    return report


def as_text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def pytest_terminal_summary(terminalreporter):
    reports = [report for group in terminalreporter.stats.values() for report in group]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    tables = defaultdict(list)
    for report in sorted(calls, key=lambda report: report.nodeid.split("::")[0]):  # whichever worker was done first
        for name, value in report.user_properties:
            if name == "report_table":
                tables[value[0]] += value[1]
    for title, rows in sorted(tables.items()):
        terminalreporter.section(title)
        terminalreporter.write_line(as_table(rows))


def as_table(rows: list[dict]) -> str:
    """Columns as wide as their widest cell, in the order in which the rows bring them up."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, *([row.get(column, "") for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
