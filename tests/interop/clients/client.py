"""Python's httpx."""

import sys

import httpx

url, key, body = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
print(httpx.post(url, content=body, headers=headers, trust_env=False).status_code)
