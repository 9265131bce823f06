"""The import package is `ltbench`, mapped on the root of the repository; all else is in setup.cfg."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithoutSetup(build_py):
    """Leaves this file, which lies in the root of the package, out of what is installed."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Return package, module and file of each module of a package."""
        return [
            found for found in super().find_package_modules(package, package_dir) if found[:2] != ("ltbench", "setup")
        ]


setup(
    cmdclass={"build_py": BuildWithoutSetup},
    package_dir={"ltbench": "."},
    packages=["ltbench", *(f"ltbench.{name}" for name in find_packages(exclude=["tests", "tests.*"]))],
)
