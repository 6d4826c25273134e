"""The formats of a report; each is a method of `study.report.report.Report`. Imports nothing, for the command line."""

FORMATS = ("table", "markdown", "csv", "json", "html")
