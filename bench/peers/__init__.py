"""Other projects' models behind our interface, for measuring side by side. Nothing but bench/ imports it."""
