"""The local online endpoint: a front that splits the traffic, and one process per deployment behind it."""
