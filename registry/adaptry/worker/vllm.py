"""An alias of `adaptry.integrations.serving.vllm`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.integrations.serving.vllm", run_name="__main__", alter_sys=True)
else:
    from adaptry.integrations.serving.vllm import *  # noqa: F403
