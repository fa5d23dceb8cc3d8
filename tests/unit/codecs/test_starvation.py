"""Nothing is left here: age bonus and random share are gone. Goes with its line in NUMERICS of tests/conftest.py."""
