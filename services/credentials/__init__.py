"""Credentials: the vault that keeps what upstream servers want to see and callers never do.

domain.py      whose a credential is, and what may be told of it
layout.py      the fields of a server's credential, and where they go
standing.py    how servers stand for a person
masterkey/     what wraps the keys of records: in this process, or in a KMS
vault.py       envelope encryption
store/         every query
oauth/         credentials from the upstream's own authorization server
storing.py     storing what was entered
bus.py         opens credentials for gateways, sealed to the asker
rotation.py    goes over to another master key
departures.py  deletes the credentials of people who were removed
api.py, mine.py                  JSON under /api/credentials, for administrators and for everybody
console.py, rotation_console.py  the pages under /credentials
"""
