"""An application's settings: their names and defaults, where they are read from, and how they are shown."""
