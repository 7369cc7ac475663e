"""Imports the adapters of a folder tree: each training run becomes an adapter, each checkpoint a version.

    scan = scan_folder(Path("runs"))
    for result in run_import(registry, plan_import(scan, "acme")):
        print(result.version)

The plan depends only on the tree, so a repeated run continues where the last one stopped, and two runs at
once make the same versions once.
"""
