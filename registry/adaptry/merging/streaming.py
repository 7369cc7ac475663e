"""An alias of `adaptry.compute.merging.streaming`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.compute.merging.streaming", run_name="__main__", alter_sys=True)
else:
    from adaptry.compute.merging.streaming import *  # noqa: F403
