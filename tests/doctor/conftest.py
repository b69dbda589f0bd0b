"""The fixtures of the doctor's tests."""

from tests.fakehost import host  # noqa: F401
