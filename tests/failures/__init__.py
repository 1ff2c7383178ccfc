"""Everything that can fail, with a test each, by the numbers of the list in README.md beside this."""
