"""What the connections use of urllib3 that is no part of its interface: another release that lacks it fails here."""

from __future__ import annotations

import inspect
import re
from http.client import HTTPResponse

import pytest
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from registry_sync.oci.http.received import WholeResponse


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_a_connection_keeps_the_name_that_it_connects_to_and_what_it_logs_where_they_are_changed(
    kind: type[HTTPConnection],
) -> None:
    connection = kind("registry.example", port=5000)
    assert connection._dns_host == "registry.example"
    assert connection._response_options is None
    assert "_dns_host" in inspect.getsource(kind._new_conn)
    assert "_response_options" in inspect.getsource(HTTPConnection.request)
    assert "_new_conn" in inspect.getsource(kind.connect)


def test_a_pool_makes_its_connections_of_the_class_that_it_names_and_checks_them_where_that_is_replaced() -> None:
    assert "ConnectionCls" in inspect.getsource(HTTPConnectionPool._new_conn)
    assert "ConnectionCls" in inspect.getsource(HTTPSConnectionPool._new_conn)
    assert "_validate_conn" in inspect.getsource(HTTPConnectionPool._make_request)
    assert inspect.signature(HTTPSConnectionPool._validate_conn).parameters.keys() == {"self", "conn"}


def test_a_response_of_python_reads_its_status_and_knows_whether_its_connection_closes() -> None:
    for name in ("_read_status", "_check_close"):
        assert list(inspect.signature(getattr(HTTPResponse, name)).parameters) == ["self"]
    assert "_method" in inspect.getsource(HTTPResponse.__init__)


def test_a_pool_says_of_a_response_where_it_came_from_and_takes_its_connection_back() -> None:
    source = inspect.getsource(HTTPConnectionPool._make_request)
    for name in ("response.retries =", "response._connection =", "response._pool ="):
        assert name in source
    used = set(re.findall(r"response\.(\w+)", source)) - {"retries", "_connection", "_pool"}
    assert used <= set(dir(WholeResponse)) | {"status", "version_string"}
    assert list(inspect.signature(HTTPConnectionPool._put_conn).parameters) == ["self", "conn"]


def test_a_pool_keeps_its_connections_in_a_queue_and_opens_those_that_are_none_or_have_no_socket() -> None:
    pool = HTTPConnectionPool("registry.example", maxsize=2, block=True)
    assert pool.pool is not None
    assert pool.pool.get(block=False) is None
    connection = pool._new_conn()
    pool._put_conn(connection)
    assert pool.pool.get(block=False) is connection
    assert connection.sock is None
    pool.close()
    assert pool.pool is None
