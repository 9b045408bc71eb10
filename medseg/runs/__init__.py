"""Starting runs and looking after them from outside: their folders and processes alone, no torch, no daemon."""
