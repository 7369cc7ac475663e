"""An alias of `adaptry.jobs.step_process_main`: the name that installed runners start."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.jobs.step_process_main", run_name="__main__", alter_sys=True)
else:
    from adaptry.jobs.step_process_main import *  # noqa: F403
