"""Attacks on the authorization server and on the people who use it, as a table.

table.py      what an attack is
codes.py      on redirects, authorization codes, PKCE, clients
tokens.py     on access tokens, refresh tokens, their signatures
browsers.py   on people's browsers: requests and pages of other sites, what URLs give away
people.py     on people: cookies, logins, consent
"""
