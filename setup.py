"""Everything setuptools needs to know is in settings.ini, which nbdev reads too."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

root = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(root / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

extras = {name: cfg[f"{name}_requirements"].split() for name in ("samples", "train", "notebooks", "dev")}
extras["dev"] = sum(extras.values(), [])     # to work on the project is to need all of it

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    packages=[cfg["lib_path"]],
    package_data={cfg["lib_path"]: ["weights/*/*", "templates/*", "py.typed"]},
    install_requires=cfg["requirements"].split(),
    extras_require=extras | {"site": cfg["site_requirements"].split()},      # not in dev: few build the site
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
