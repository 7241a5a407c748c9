"""Embedded mode: all of Lockgate in one process, on one port and in one directory.

catalog.py     the services: their names, factories and settings classes
settings.py    the settings of all five from one place
dispatcher.py  sends each path to the service that owns it
health.py      /healthz and /readyz for all of them together
lifespan.py    starts and stops an ASGI app by the lifespan protocol
server.py      the listening socket and the HTTP server
datadir.py     the data directory: one owner at a time, private files, generated secrets
child.py       a supervised child process; tether.py binds its life to ours
nats.py        the nats-server child
demo.py        the demo server child
console.py     what `lockgate up` prints
up.py          all of it in order: start, serve, stop
"""
