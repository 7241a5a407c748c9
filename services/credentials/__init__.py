"""Credentials: the vault that keeps what upstream servers want to see and callers never do.

domain.py    what a credential is, and which headers and keys it may have
masterkey.py where the master key comes from
vault.py     envelope encryption
store.py     every query
bus.py       opens credentials for gateways, sealed to the asker
api.py       JSON under /api/credentials
console.py   the page /credentials
"""
