"""The finished runs that the tests of tables use."""

from tests.tables.conftest import project, sweep_of  # noqa: F401
