"""Everything that knows processes: Ray, its actors, what a machine has room for. May use federation and below."""
