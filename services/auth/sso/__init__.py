"""Single sign-on by the organization's OpenID provider.

settings.py   what an operator sets, here and about passwords
provider.py   the provider over HTTP: metadata, keys, tokens
id_token.py   what an ID token must say
claims.py     what the claims about a person mean here
accounts.py   whose account that is, its role and group
routes.py     `/login/sso` and back
"""
