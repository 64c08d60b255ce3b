"""Chooses what indexes and calls the app's functions, and sets the paths that it is found on."""

import importlib.util
import os
import sys

SCRIPT = "function_app.py"


def choose(link, root):
    add_paths(root)
    script = os.environ.get("PYTHON_SCRIPT_FILE_NAME") or SCRIPT
    is_v2 = os.path.exists(os.path.join(root, script))
    name = "azure_functions_runtime" if is_v2 else "azure_functions_runtime_v1"
    # From 3.13 on the vendor publishes the handlers as packages; where they are installed, they are used.
    if sys.version_info >= (3, 13) and importlib.util.find_spec(name):
        from . import official

        return official.Engine(link, name)
    from . import own

    return own.Engine(link, root, script if is_v2 else None)


def add_paths(root):
    """An app's packages come first, then the app itself, then what the node has installed."""
    packages = os.path.join(root, ".python_packages", "lib", "site-packages")
    for path in (root, packages):
        if path in sys.path:
            sys.path.remove(path)
        if os.path.isdir(path):
            sys.path.insert(0, path)
    importlib.invalidate_caches()
    # `azure` may be a package that was found before the app's own packages were.
    if "azure" in sys.modules:
        del sys.modules["azure"]
