"""What is measured, and against what: each module prints a table and one last line of JSON."""
