"""Layout of every file the project renders. No decisions are made here."""
