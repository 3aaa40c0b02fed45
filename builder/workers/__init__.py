"""Models built side by side: processes that are forked, watched and ended, and the servers that verify."""
