"""An alias of `adaptry.compute.combining`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.compute.combining", run_name="__main__", alter_sys=True)
else:
    from adaptry.compute.combining import *  # noqa: F403
