"""Puts conf/ and experiments/ into the wheel, beside the code; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithPresets(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("conf", "experiments"):
                shutil.copytree(folder, Path(self.build_lib) / "genaug" / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithPresets})
