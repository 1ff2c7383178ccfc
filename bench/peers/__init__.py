"""The peers: each is a gateway as its own documentation sets it up, in a few lines.

They run with dependencies of their own (bench/.venv, bench/peers/node_modules), never with ours.
"""
