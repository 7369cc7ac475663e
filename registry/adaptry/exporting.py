"""An alias of `adaptry.compute.exporting`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.compute.exporting", run_name="__main__", alter_sys=True)
else:
    from adaptry.compute.exporting import *  # noqa: F403
