"""The command line. No service imports from here."""
