"""An alias of `adaptry.integrations.rl`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.integrations.rl", run_name="__main__", alter_sys=True)
else:
    from adaptry.integrations.rl import *  # noqa: F403
