"""`adaptry.integrations.serving`, under the name that others know it by."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.integrations.serving", run_name="__main__", alter_sys=True)
else:
    from adaptry.integrations.serving import *  # noqa: F403
