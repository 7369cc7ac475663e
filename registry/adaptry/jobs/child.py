"""`adaptry.jobs.subprocess_main`, under the name that others know it by."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.jobs.subprocess_main", run_name="__main__", alter_sys=True)
else:
    from adaptry.jobs.subprocess_main import *  # noqa: F403
