"""An alias of `adaptry.integrations.serving`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.integrations.serving", run_name="__main__", alter_sys=True)
else:
    from adaptry.integrations.serving import *  # noqa: F403
