"""`adaptry.compute.combining`, under the name that others know it by."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.compute.combining", run_name="__main__", alter_sys=True)
else:
    from adaptry.compute.combining import *  # noqa: F403
