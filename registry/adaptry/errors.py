"""`adaptry.core.errors`, under the name that others know it by."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.core.errors", run_name="__main__", alter_sys=True)
else:
    from adaptry.core.errors import *  # noqa: F403
