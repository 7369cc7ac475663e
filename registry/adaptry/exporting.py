"""`adaptry.compute.exporting`, under the name that others know it by."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.compute.exporting", run_name="__main__", alter_sys=True)
else:
    from adaptry.compute.exporting import *  # noqa: F403
