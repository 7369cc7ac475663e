"""An alias of `adaptry.core.errors`: the name that users' programs import."""

if __name__ == "__main__":
    import runpy

    runpy.run_module("adaptry.core.errors", run_name="__main__", alter_sys=True)
else:
    from adaptry.core.errors import *  # noqa: F403
    from adaptry.core.errors import AdaptryError as _Root

    def __dir__() -> list[str]:
        """The classes, for tab completion."""
        return [
            name
            for name, value in globals().items()
            if isinstance(value, type) and issubclass(value, _Root) and not name.startswith("_")
        ]
