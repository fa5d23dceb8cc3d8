"""Everything else stands in pyproject.toml, which cannot say that a package lies outside of `raysoft/`."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["raysoft*"]), "raysoft.tune_configs"],
    package_dir={"raysoft.tune_configs": "tune_configs"},
    package_data={
        "raysoft": ["config/presets/*.yaml", "report/*.html", "runs/conformance/templates/*.txt", "py.typed"],
        "raysoft.tune_configs": ["*.yaml"],  # sweeps that `raysoft tune NAME` finds
    },
)
