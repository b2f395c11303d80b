"""The asserts of verdicts.py say what they compared, as those of a test file do."""

import pytest

pytest.register_assert_rewrite("tests.checks.verdicts")
