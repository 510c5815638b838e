"""Its presence makes ``dense_reference`` importable from the folders below."""
