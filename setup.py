"""The import package is `ltbench`, mapped on the root of the repository; all else is in setup.cfg."""

from setuptools import find_packages, setup

setup(
    package_dir={"ltbench": "."},
    packages=["ltbench", *(f"ltbench.{name}" for name in find_packages(exclude=["tests", "tests.*"]))],
)
