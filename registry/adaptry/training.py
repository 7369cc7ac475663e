"""An alias of `adaptry.integrations.training`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.integrations.training", run_name="__main__", alter_sys=True)
else:
    from adaptry.integrations.training import *  # noqa: F403
