"""What is said of a file on a server: addresses and places that are not taken."""

import pytest

from ltbench.datasets.download.remote import Remote
from ltbench.errors import UserError


@pytest.mark.parametrize(
    ("url", "name", "folder"),
    [
        *((url, "a", "") for url in ("ftp://host/a", "file:///etc/passwd", "host/a", "http:///a")),
        *(("http://host/a", name, "") for name in ("", ".", "..", "../a", "/a", "a/b", "a\\b", "C:a")),
        *(("http://host/a", name, "") for name in ("a", "a.tar", "a.tar.gz")),
        *(("http://host/a", "a.zip", folder) for folder in ("..", "/a", "a/../..", "C:a", "\\a", ".")),
    ],
)
def test_an_address_or_place_that_is_not_taken(url, name, folder):
    with pytest.raises(UserError, match=r"is no (http or https address|file name|folder in the root|\.zip)"):
        Remote(url, name, unpack=True, folder=folder)
