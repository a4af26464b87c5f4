"""Visits the service: twenty orders, and one page that is not there."""

from __future__ import annotations

import urllib.error
import urllib.request

URL = "http://127.0.0.1:8000"

for amount in range(20):
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/orders/{amount}", method="POST")) as answer:
        last = answer.read().decode()
try:
    urllib.request.urlopen(f"{URL}/nothing")
except urllib.error.HTTPError as error:
    error.close()
    print(last, error.code)
