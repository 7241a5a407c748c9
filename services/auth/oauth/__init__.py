"""The OAuth 2.1 authorization server, on Authlib.

metadata.py       RFC 8414 metadata, JWKS
registration.py   RFC 7591 dynamic client registration
authorize.py      the authorization endpoint and the consent page
prompts.py        what a client may say about asking the person
token.py          the token, revocation and introspection endpoints
server.py         the adapter between Starlette and Authlib, which is synchronous
code_grant.py, refresh_grant.py, revocation.py, introspection.py   what Authlib calls, in a thread
documents.py      clients whose id is the URL of a document about them (CIMD)
device_grant.py, device.py   RFC 8628: clients that cannot open a browser
resources.py      RFC 8707: which audiences there are
redirects.py      which redirect URIs a client may register and use (RFC 8252)
"""
