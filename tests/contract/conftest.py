"""The suites live in the package, so pytest is told to explain their assertions too."""

import pytest

pytest.register_assert_rewrite("adaptry.testing")
