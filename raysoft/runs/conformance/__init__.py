"""A plug-in held to what its kind promises, and templates to begin with. May use what `runs` may use."""
