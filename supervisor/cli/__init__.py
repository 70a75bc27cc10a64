"""The command line: one file a group of verbs, each imported only when it is used."""
