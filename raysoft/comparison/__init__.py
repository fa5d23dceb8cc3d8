"""Many runs: arms and seeds, their store, statistics, tables. May use runs and below."""
