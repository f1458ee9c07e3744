"""How a report is written: the page, the summary, and their sections, from plain values."""
