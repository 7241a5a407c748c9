"""Credentials that people get from the upstream's own authorization server: OAuth 2.1 as a client.

domain.py        authorization servers, connections, and the errors of both; no I/O
provider.py      what an administrator may set; configuring.py sets it
web.py           which addresses may be asked, and asking them
discovery.py     from a server's URL to its authorization server (RFC 9728, RFC 8414, OpenID Discovery)
registration.py  becoming a client there by ourselves (RFC 7591)
endpoints.py     requests to it: tokens, revocation, who somebody is
connecting.py    sending somebody there, and what they bring back
pending.py       those who are there now (tables.py)
refreshing.py    when tokens are renewed, one at a time per account (leases.py)
renewal.py       one refresh
revoking.py      telling a provider what was removed here
telling.py       to the control log and the record, what became of a credential
api.py, console.py, provider_console.py, bus.py   routes, pages and requests; parts.py wires it all
"""
