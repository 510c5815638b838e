"""Its presence makes ``toy_space`` importable from here."""
