"""`adaptry.jobs.step_process_main`, under a name that installed programs use."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.jobs.step_process_main", run_name="__main__", alter_sys=True)
else:
    from adaptry.jobs.step_process_main import *  # noqa: F403
