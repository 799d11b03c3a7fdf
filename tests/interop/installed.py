"""installed.py REQUIREMENTS: end with 0 if all its packages are installed in its versions, else with 1."""
import importlib.metadata
import sys


def installed(line):
    name, version = line.split("==")
    try:
        return importlib.metadata.version(name).split("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


with open(sys.argv[1], encoding="utf-8") as f:
    sys.exit(0 if all(installed(line) for line in f.read().split()) else 1)
