"""HTTP that ends by its deadline.

retry       decides whether a failed request is made again, and waits in between
http        one request, over urllib3
sockets     its sockets, each operation bounded by the request's deadline
resolver    name look-ups, bounded in the same way
proxies     the proxy that the environment names
auth        credentials
errors      how a request fails, and which failures are permanent
"""
