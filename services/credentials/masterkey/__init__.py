"""Master keys: what wraps the data keys of the vault.

port.py      what a master key can do, and what can go wrong
local.py     in the memory of this process
transit.py   in HashiCorp Vault (extra `vault`)
aws.py       in AWS KMS (extra `kms`)
load.py      those that the settings name
"""
